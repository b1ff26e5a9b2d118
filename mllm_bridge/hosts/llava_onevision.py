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
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.hosts.family import FeatureLayer, Settings
from mllm_bridge.hosts.tiles import TileHost
from mllm_bridge.tower.probe import TowerFacts


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

    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text: dict[str, Any],
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Three grids of two tiles or four."""
        size = tower_config.image_size
        grids = [[size, 2 * size], [2 * size, size], [2 * size, 2 * size]]
        config = LlavaOnevisionConfig(
            vision_config=tower_config,
            text_config=self.text_config_class(**text),
            image_token_index=tokenizer.image_token_id,
            video_token_index=tokenizer.video_token_id,
            image_grid_pinpoints=grids,
            vision_feature_select_strategy="default",
        )
        side = {"height": size, "width": size}
        processor = LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessor(size=side, image_grid_pinpoints=grids),
            tokenizer,
            LlavaOnevisionVideoProcessor(size=side),
            num_image_tokens=(size // tower_config.patch_size) ** 2 + 1,
            vision_feature_select_strategy="default",
            chat_template=chat_template,
        )
        return LlavaOnevisionForConditionalGeneration(config), processor


LLAVA_ONEVISION = LlavaOnevision()
