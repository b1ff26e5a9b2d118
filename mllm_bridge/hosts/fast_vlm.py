"""FastVLM (`FastVlmForConditionalGeneration`): reads its tower's last hidden state as a map."""

from __future__ import annotations

from typing import Any

from transformers import (
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from cloc.towers.wrapper import WrappedTowerConfig
from mllm_bridge.hosts.family import WRAPPER, FeatureLayer, Settings
from mllm_bridge.hosts.strategies import StrategyHost, counting_processor
from mllm_bridge.hosts.tiny_parts import TinyParts


class FastVlm(StrategyHost):
    """Every tower comes through the wrapper, which gives (B, C, G, G); layer -1 in full is all that it knows."""

    model_type = "fast_vlm"
    model_class = FastVlmForConditionalGeneration
    processor_class = LlavaProcessor
    cls = WRAPPER
    plain = WRAPPER
    wants_map = True
    reads_last = True

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The only layer that its config allows."""
        return super().settings(config, facts, -1)

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Starts with a wrapped tower, since the stock one is a convolutional network of timm."""
        wrapped = WrappedTowerConfig(
            tower=parts.tower,
            hidden_size=parts.tower.hidden_size,
            patch_size=parts.patch,
            image_size=parts.size,
            num_hidden_layers=parts.tower.num_hidden_layers,
            skip=1,
            as_map=True,
        )
        config = FastVlmConfig(
            vision_config=wrapped,
            text_config=self.text_config_class(**parts.text),
            image_token_index=parts.tokenizer.convert_tokens_to_ids(self.image_token),
            image_seq_length=parts.patches,
        )
        processor = counting_processor(self, parts, parts.image_processor, 0)
        return FastVlmForConditionalGeneration(config), processor


FAST_VLM = FastVlm()
