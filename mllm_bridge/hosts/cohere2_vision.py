"""Command A Vision (`Cohere2VisionForConditionalGeneration`): tiles, folded patches, the last hidden state."""

from __future__ import annotations

from typing import Any

from transformers import (
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import STOCK, WRAPPER, FeatureLayer, Settings
from mllm_bridge.hosts.shuffle import ShuffleHost
from mllm_bridge.hosts.tiny_parts import TinyParts


class Cohere2Vision(ShuffleHost):
    """Reads the last hidden state in full, so a CLS token has to be cut off by the wrapper."""

    model_type = "cohere2_vision"
    model_class = Cohere2VisionForConditionalGeneration
    processor_class = Cohere2VisionProcessor
    cls = WRAPPER
    pyramid = STOCK
    reads_last = True
    text_config_class = Cohere2Config
    special_tokens = {  # noqa: RUF012
        "image_token": "<image>",
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """What the processor calls its patch size is the number of tokens a side of a tile."""
        tokens = self.tokens_a_side(config, facts)
        return Settings(
            processor={"patch_size": tokens},
            image_processor={
                "size": {"height": facts.image_size, "width": facts.image_size},
                "patch_size": tokens,
            },
        )

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """At most four tiles."""
        config = Cohere2VisionConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_id=parts.tokenizer.image_token_id,
            alignment_intermediate_size=2 * parts.text["hidden_size"],
        )
        tokens = parts.size // parts.patch // config.downsample_factor
        processor = Cohere2VisionProcessor(
            Cohere2VisionImageProcessor(size=parts.side, max_patches=4, patch_size=tokens),
            parts.tokenizer,
            chat_template=parts.chat_template,
        )
        return Cohere2VisionForConditionalGeneration(config), processor


COHERE2_VISION = Cohere2Vision()
