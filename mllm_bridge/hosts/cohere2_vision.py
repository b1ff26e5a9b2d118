"""Command A Vision (`Cohere2VisionForConditionalGeneration`): tiles, folded patches, the last hidden state."""

from __future__ import annotations

from typing import Any

from transformers import (
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.hosts.family import STOCK, WRAPPER, FeatureLayer, Settings
from mllm_bridge.hosts.shuffle import ShuffleHost
from mllm_bridge.tower.probe import TowerFacts


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

    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text: dict[str, Any],
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """At most four tiles."""
        size = tower_config.image_size
        config = Cohere2VisionConfig(
            vision_config=tower_config,
            text_config=self.text_config_class(**text),
            image_token_id=tokenizer.image_token_id,
            alignment_intermediate_size=2 * text["hidden_size"],
        )
        tokens = size // tower_config.patch_size // config.downsample_factor
        side = {"height": size, "width": size}
        processor = Cohere2VisionProcessor(
            Cohere2VisionImageProcessor(size=side, max_patches=4, patch_size=tokens),
            tokenizer,
            chat_template=chat_template,
        )
        return Cohere2VisionForConditionalGeneration(config), processor


COHERE2_VISION = Cohere2Vision()
