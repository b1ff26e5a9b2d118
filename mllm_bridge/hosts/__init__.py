"""The families of hosts that are known, by the `model_type` of their config. Each is described in a file of its own."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from cloc.model_bounds import check_config
from mllm_bridge.hosts.aya_vision import AYA_VISION
from mllm_bridge.hosts.cohere2_vision import COHERE2_VISION
from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.hosts.fast_vlm import FAST_VLM
from mllm_bridge.hosts.gemma3 import GEMMA3
from mllm_bridge.hosts.idefics3 import IDEFICS3
from mllm_bridge.hosts.internvl import INTERNVL
from mllm_bridge.hosts.llava import LLAVA
from mllm_bridge.hosts.llava_next import LLAVA_NEXT
from mllm_bridge.hosts.llava_onevision import LLAVA_ONEVISION
from mllm_bridge.hosts.paligemma import PALIGEMMA
from mllm_bridge.hosts.perception_lm import PERCEPTION_LM
from mllm_bridge.hosts.refused import REFUSING, suggest_conversion
from mllm_bridge.hosts.smolvlm import SMOLVLM
from mllm_bridge.hosts.video_llava import VIDEO_LLAVA
from mllm_bridge.hosts.vipllava import VIPLLAVA
from mllm_bridge.weights.packed import refuse_quantised

FAMILIES: dict[str, HostFamily] = {
    family.model_type: family
    for family in (
        AYA_VISION,
        COHERE2_VISION,
        FAST_VLM,
        GEMMA3,
        IDEFICS3,
        INTERNVL,
        LLAVA,
        LLAVA_NEXT,
        LLAVA_ONEVISION,
        PALIGEMMA,
        PERCEPTION_LM,
        SMOLVLM,
        VIDEO_LLAVA,
        VIPLLAVA,
    )
}
"""The families that take a tower of one kind or more."""
DEFAULT = LLAVA
"""The family of which the bare command makes a tiny host."""


def find_family(config: dict[str, Any], source: str) -> HostFamily:
    """The description of a host's family.

    Args:
        config: content of the host's config.json.
        source: where the host lies, for messages.

    Raises:
        ValueError: its weights are quantised, a size in its config is none, the family is unknown or takes no other
            tower, or its processor needs a package that is not here.
    """
    refuse_quantised(config, source)
    check_config(config, source)
    model_type = config.get("model_type")
    model_type = model_type if isinstance(model_type, str) else repr(model_type)
    if model_type in REFUSING:
        raise ValueError(
            f"host: {source} is of the family {model_type!r}, which takes no other tower: {REFUSING[model_type]}"
        )
    if model_type not in FAMILIES:
        raise ValueError(
            f"host: {source} is of type {model_type!r}; known families: {', '.join(sorted(FAMILIES))}; "
            f"{suggest_conversion(model_type)}"
        )
    family = FAMILIES[model_type]
    if family.needs is not None and find_spec(family.needs) is None:
        raise ValueError(
            f"host: {source} is of the family {model_type!r}, whose processor needs the package {family.needs}, which "
            f"is not installed; `pip install {family.needs}`, or install this kit with its extra: "
            f"`pip install -e .[{model_type}]`"
        )
    return family
