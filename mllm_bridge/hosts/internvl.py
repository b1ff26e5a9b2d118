"""InternVL (`InternVLForConditionalGeneration`): the config class of its tower is fixed."""

from __future__ import annotations

from mllm_bridge.hosts.family import Refusing

WHY = (
    "its config reads every tower's config as its own vision class, so a foreign tower would come back as random "
    "weights without a word"
)

INTERNVL = Refusing("internvl", WHY)
