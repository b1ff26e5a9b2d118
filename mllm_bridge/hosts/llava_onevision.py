"""LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`): tiles as LLaVA-NeXT, shrunk above a number of patches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from transformers import (
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.counting import TileHost
from mllm_bridge.hosts.family import FeatureLayer, Settings


class LlavaOnevision(TileHost):
    """Reads layer -1 in full by default; the processor counts by `num_image_tokens`, the CLS token included."""

    model_type = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    processor_class = LlavaOnevisionProcessor

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor takes one token away for the strategy `default`."""
        common = super().settings(config, facts, layer)
        return replace(
            common,
            processor={**common.processor, "num_image_tokens": facts.patches + facts.extra_tokens},
            image_processor={
                **common.image_processor,
                "size": {"height": facts.image_size, "width": facts.image_size},
            },
        )

    def packing(self) -> Any:
        """With the shape of tiles that the model itself uses when it is told nothing."""
        return partial(LlavaOnevisionModel.pack_image_features, vision_aspect_ratio="anyres_max_9")


LLAVA_ONEVISION = LlavaOnevision()
