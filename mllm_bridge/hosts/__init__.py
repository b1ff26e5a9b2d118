"""The families of hosts that are known, by the `model_type` of their config. Each is described in a file of its own."""

from __future__ import annotations

from typing import Any

from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.hosts.llava import LLAVA

FAMILIES: dict[str, HostFamily] = {family.model_type: family for family in (LLAVA,)}
DEFAULT = LLAVA
"""The family of which the bare command makes a tiny host."""


def family_of(config: dict[str, Any], source: str) -> HostFamily:
    """The description of a host's family.

    Args:
        config: content of the host's config.json.
        source: where the host lies, for messages.

    Raises:
        ValueError: the family is unknown.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(
            f"host: {source} is of type {model_type!r}; known families: {', '.join(sorted(FAMILIES))}. Another family "
            "needs a description in mllm_bridge/hosts/: where tower and projector sit in memory and on disk, which "
            "features it reads, how it counts image tokens, and what its config and processor have to be told"
        )
    return FAMILIES[model_type]
