"""Video-LLaVA (`VideoLlavaForConditionalGeneration`): an image tower and a video tower, both made from one config."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.hosts.family import STOCK
from mllm_bridge.hosts.strategies import StrategyHost


class VideoLlava(StrategyHost):
    """Reads layer -2; the new tower goes into both places, since one config describes both."""

    model_type = "video_llava"
    model_class = VideoLlavaForConditionalGeneration
    processor_class = VideoLlavaProcessor
    pyramid = STOCK
    towers = ("image_tower", "video_tower")
    special_tokens = {"image_token": "<image>", "video_token": "<video>"}  # noqa: RUF012

    def video_fields(self, side: dict[str, int]) -> dict[str, Any]:
        """Frames are resized by the shortest edge and cropped."""
        return {"size": {"shortest_edge": side["height"]}, "crop_size": side}

    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text: dict[str, Any],
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Set as Video-LLaVA is: layer -2, CLS dropped."""
        size = tower_config.image_size
        config = VideoLlavaConfig(
            vision_config=tower_config,
            text_config=self.text_config_class(**text),
            image_token_index=tokenizer.image_token_id,
            video_token_index=tokenizer.video_token_id,
            image_seq_length=(size // tower_config.patch_size) ** 2,
        )
        processor = VideoLlavaProcessor(
            image_processor,
            VideoLlavaVideoProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
            tokenizer,
            patch_size=tower_config.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=chat_template,
        )
        return VideoLlavaForConditionalGeneration(config), processor


VIDEO_LLAVA = VideoLlava()
