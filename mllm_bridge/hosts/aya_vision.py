"""Aya Vision (`AyaVisionForConditionalGeneration`): tiles, and two by two patches folded into one token."""

from __future__ import annotations

from typing import Any

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    GotOcr2ImageProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import STOCK, FeatureLayer, Settings
from mllm_bridge.hosts.shuffle import ShuffleHost
from mllm_bridge.hosts.strategies import strategy
from mllm_bridge.hosts.tiny_parts import TinyParts

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

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """At most four tiles."""
        config = AyaVisionConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_index=parts.tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
            vision_feature_select_strategy="default",
        )
        processor = AyaVisionProcessor(
            GotOcr2ImageProcessor(size=parts.side, max_patches=4),
            parts.tokenizer,
            patch_size=2 * parts.patch,
            img_size=parts.size,
            chat_template=parts.chat_template,
        )
        return AyaVisionForConditionalGeneration(config), processor


AYA_VISION = AyaVision()
