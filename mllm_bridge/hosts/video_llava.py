"""Video-LLaVA (`VideoLlavaForConditionalGeneration`): an image tower and a video tower, both made from one config."""

from __future__ import annotations

from typing import Any

from transformers import (
    VideoLlavaForConditionalGeneration,
    VideoLlavaProcessor,
)

from mllm_bridge.hosts.counting import StrategyHost
from mllm_bridge.hosts.family import STOCK


class VideoLlava(StrategyHost):
    """Reads layer -2; the new tower goes into both places, since one config describes both."""

    model_type = "video_llava"
    model_class = VideoLlavaForConditionalGeneration
    processor_class = VideoLlavaProcessor
    pyramid = STOCK
    towers = ("image_tower", "video_tower")

    def video_fields(self, side: dict[str, int]) -> dict[str, Any]:
        """Frames are resized by the shortest edge and cropped."""
        return {"size": {"shortest_edge": side["height"]}, "crop_size": side}


VIDEO_LLAVA = VideoLlava()
