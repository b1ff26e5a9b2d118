"""LLaVA-NeXT (`LlavaNextForConditionalGeneration`): an overview and a grid of tiles, rows ended by `image_newline`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextModel,
    LlavaNextProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, Settings
from mllm_bridge.hosts.strategies import counting_processor
from mllm_bridge.hosts.tiles import TileHost, tiny_grids
from mllm_bridge.hosts.tiny_parts import TinyParts


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

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Three grids of two tiles or four."""
        grids = tiny_grids(parts.size)
        config = LlavaNextConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_index=parts.tokenizer.convert_tokens_to_ids(self.image_token),
            image_grid_pinpoints=grids,
            image_seq_length=parts.patches,
        )
        images = LlavaNextImageProcessor(
            size={"shortest_edge": parts.size}, crop_size=parts.side, image_grid_pinpoints=grids
        )
        processor = counting_processor(self, parts, images, 1)
        return LlavaNextForConditionalGeneration(config), processor


LLAVA_NEXT = LlavaNext()
