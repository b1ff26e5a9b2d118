"""Mistral 3 (`Mistral3ForConditionalGeneration`): packs images of any shape into one sequence."""

from __future__ import annotations

from mllm_bridge.hosts.family import Refusing

WHY = (
    "its processor keeps the aspect ratio and packs images of any shape into one sequence, and a tower of one square "
    "size never sees such an image"
)

MISTRAL3 = Refusing("mistral3", WHY)
