"""Aya Vision (`AyaVisionForConditionalGeneration`): tiles, and two by two patches folded into one token."""

from __future__ import annotations

from typing import Any

from transformers import (
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.counting import ShuffleHost, choose_strategy
from mllm_bridge.hosts.family import STOCK, FeatureLayer, Settings


class AyaVision(ShuffleHost):
    """Reads layer -1 in full by default; the processor's patch size is that of a folded token."""

    model_type = "aya_vision"
    model_class = AyaVisionForConditionalGeneration
    processor_class = AyaVisionProcessor
    pyramid = STOCK

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The stored patch size is already patch times factor."""
        tokens = self.tokens_a_side(config, facts)
        return Settings(
            config={"vision_feature_layer": layer, "vision_feature_select_strategy": choose_strategy(facts)},
            processor={"patch_size": facts.image_size // tokens, "img_size": facts.image_size},
            image_processor={"size": {"height": facts.image_size, "width": facts.image_size}},
        )


AYA_VISION = AyaVision()
