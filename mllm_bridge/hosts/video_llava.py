"""Video-LLaVA (`VideoLlavaForConditionalGeneration`): an image tower and a video tower, both made from one config."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from mllm_bridge.hosts.family import STOCK
from mllm_bridge.hosts.strategies import StrategyHost
from mllm_bridge.hosts.tiny_parts import TinyParts


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

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Set as Video-LLaVA is: layer -2, CLS dropped."""
        config = VideoLlavaConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_index=parts.tokenizer.image_token_id,
            video_token_index=parts.tokenizer.video_token_id,
            image_seq_length=parts.patches,
        )
        processor = VideoLlavaProcessor(
            parts.image_processor,
            VideoLlavaVideoProcessor(size={"shortest_edge": parts.size}, crop_size=parts.side),
            parts.tokenizer,
            patch_size=parts.patch,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=parts.chat_template,
        )
        return VideoLlavaForConditionalGeneration(config), processor


VIDEO_LLAVA = VideoLlava()
