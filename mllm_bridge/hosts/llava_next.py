"""LLaVA-NeXT (`LlavaNextForConditionalGeneration`): an overview and a grid of tiles, rows ended by `image_newline`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from transformers import (
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaNextProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.counting import TileHost
from mllm_bridge.hosts.family import FeatureLayer, Settings


class LlavaNext(TileHost):
    """The grid of a tile is `image_size // patch_size` of the tower's config, so a Swin needs the wrapper."""

    model_type = "llava_next"
    model_class = LlavaNextForConditionalGeneration
    processor_class = LlavaNextProcessor

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor counts by patch size and extra tokens."""
        side = {"height": facts.image_size, "width": facts.image_size}
        common = super().settings(config, facts, layer)
        return replace(
            common,
            config={**common.config, "image_seq_length": facts.patches},
            processor={
                **common.processor,
                "patch_size": facts.patch_size,
                "num_additional_image_tokens": facts.extra_tokens,
            },
            image_processor={
                **common.image_processor,
                "size": {"shortest_edge": facts.image_size},
                "crop_size": side,
            },
        )

    def packing(self) -> Any:
        """Rows that hold nothing but padding are cut off."""
        return partial(LlavaNextModel.pack_image_features, vision_feature_select_strategy="full")


LLAVA_NEXT = LlavaNext()
