"""Aya Vision (`AyaVisionForConditionalGeneration`): tiles, and two by two patches folded into one token."""

from __future__ import annotations

from typing import Any

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    GotOcr2ImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.hosts.family import STOCK, FeatureLayer, Settings
from mllm_bridge.hosts.shuffle import ShuffleHost
from mllm_bridge.hosts.strategies import strategy
from mllm_bridge.tower.probe import TowerFacts

TOKENS = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE_GLOBAL", "TILE")


class AyaVision(ShuffleHost):
    """Reads layer -1 in full by default; the processor's patch size is that of a folded token."""

    model_type = "aya_vision"
    model_class = AyaVisionForConditionalGeneration
    processor_class = AyaVisionProcessor
    pyramid = STOCK
    special_tokens = {f"aya_{index}": token for index, token in enumerate(TOKENS)}  # noqa: RUF012

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The stored patch size is already patch times factor."""
        tokens = self.tokens_a_side(config, facts)
        return Settings(
            config={"vision_feature_layer": layer, "vision_feature_select_strategy": strategy(facts)},
            processor={"patch_size": facts.image_size // tokens, "img_size": facts.image_size},
            image_processor={"size": {"height": facts.image_size, "width": facts.image_size}},
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
        config = AyaVisionConfig(
            vision_config=tower_config,
            text_config=self.text_config_class(**text),
            image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
            vision_feature_select_strategy="default",
        )
        processor = AyaVisionProcessor(
            GotOcr2ImageProcessor(size={"height": size, "width": size}, max_patches=4),
            tokenizer,
            patch_size=2 * tower_config.patch_size,
            img_size=size,
            chat_template=chat_template,
        )
        return AyaVisionForConditionalGeneration(config), processor


AYA_VISION = AyaVision()
