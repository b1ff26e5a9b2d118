"""SmolVLM (`SmolVLMForConditionalGeneration`): as Idefics3, with videos; its processor needs the package num2words."""

from __future__ import annotations

from typing import Any

from transformers import (
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)

from mllm_bridge.hosts.named import NamedHost


class SmolVLM(NamedHost):
    """Takes SigLIP towers."""

    model_type = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    processor_class = SmolVLMProcessor
    tower_type = "smolvlm_vision"
    needs = "num2words"

    def video_fields(self, side: dict[str, int]) -> dict[str, Any]:
        """Frames have the size of a tile."""
        return {"max_image_size": {"longest_edge": side["height"]}}


SMOLVLM = SmolVLM()
