"""ViP-LLaVA (`VipLlavaForConditionalGeneration`): five layers side by side, token 0 always dropped."""

from __future__ import annotations

from typing import Any

from transformers import (
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import WRAPPER, FeatureLayer, HostFamily, Settings
from mllm_bridge.hosts.strategies import counting_processor
from mllm_bridge.hosts.tiny_parts import TinyParts


class VipLlava(HostFamily):
    """Has no strategy: a tower without CLS comes through the wrapper, which puts a token in front to be dropped."""

    model_type = "vipllava"
    model_class = VipLlavaForConditionalGeneration
    processor_class = LlavaProcessor
    plain = WRAPPER
    pyramid = WRAPPER
    leading_token = True

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor counts patches and one more, and takes one away again, whatever the tower is."""
        return Settings(
            config={"image_seq_length": facts.patches, "vision_feature_layer": layer},
            processor={
                "patch_size": facts.patch_size,
                "num_additional_image_tokens": 1,
                "vision_feature_select_strategy": "default",
            },
            image_processor={"crop_size": {"height": facts.image_size, "width": facts.image_size}},
        )

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """With two layers instead of five, since the tower is a small one."""
        config = VipLlavaConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_index=parts.tokenizer.convert_tokens_to_ids(self.image_token),
            image_seq_length=parts.patches,
            vision_feature_layer=[-2, -1],
        )
        processor = counting_processor(self, parts, parts.image_processor, 1)
        return VipLlavaForConditionalGeneration(config), processor


VIPLLAVA = VipLlava()
