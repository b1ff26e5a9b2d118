"""LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`): tiles as LLaVA-NeXT, shrunk above a number of patches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionModel,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, Settings
from mllm_bridge.hosts.tiles import TileHost, tiny_grids
from mllm_bridge.hosts.tiny_parts import TinyParts


class LlavaOnevision(TileHost):
    """Reads layer -1 in full by default; the processor counts by `num_image_tokens`, the CLS token included."""

    model_type = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    processor_class = LlavaOnevisionProcessor
    special_tokens = {"image_token": "<image>", "video_token": "<video>"}  # noqa: RUF012

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

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Three grids of two tiles or four."""
        grids = tiny_grids(parts.size)
        config = LlavaOnevisionConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_index=parts.tokenizer.image_token_id,
            video_token_index=parts.tokenizer.video_token_id,
            image_grid_pinpoints=grids,
            vision_feature_select_strategy="default",
        )
        processor = LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessor(size=parts.side, image_grid_pinpoints=grids),
            parts.tokenizer,
            LlavaOnevisionVideoProcessor(size=parts.side),
            num_image_tokens=parts.patches + 1,
            vision_feature_select_strategy="default",
            chat_template=parts.chat_template,
        )
        return LlavaOnevisionForConditionalGeneration(config), processor


LLAVA_ONEVISION = LlavaOnevision()
