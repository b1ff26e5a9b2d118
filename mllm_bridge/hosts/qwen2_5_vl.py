"""Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`): the merger that projects is part of the tower."""

from __future__ import annotations

from mllm_bridge.hosts.family import Refusing

WHY = (
    "its projector (the merger) is part of its tower, which reads patches of any grid with rotary positions "
    "in windows; a tower of another kind has no place there"
)

QWEN2_5_VL = Refusing("qwen2_5_vl", WHY)
