"""Qwen2-VL and its successors (`Qwen2_5_VLForConditionalGeneration`): the merger that projects is part of the tower."""

from __future__ import annotations

from mllm_bridge.hosts.family import Refusing

WHY = (
    "its projector (the merger) is part of its tower, which reads patches of any grid with rotary positions "
    "in windows; a tower of another kind has no place there"
)

QWENS = tuple(
    Refusing(name, WHY) for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
)
