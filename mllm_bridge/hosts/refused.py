"""Hosts that take no other tower, each with its reason, and hosts of other layouts, with the way on."""

from __future__ import annotations

from transformers import CONFIG_MAPPING

PACKED = (
    "its processor keeps the aspect ratio and packs images of any shape into one sequence, and a tower of one square "
    "size never sees such an image"
)
"""Mistral 3."""
MERGED = (
    "its projector (the merger) is part of its tower, which reads patches of any grid with rotary positions "
    "in windows; a tower of another kind has no place there"
)
"""Qwen2-VL and its successors."""
QWENS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
REFUSING = {
    "mistral3": PACKED,
    **dict.fromkeys(QWENS, MERGED),
}
"""The families that take no tower of another kind, each with its reason."""
ONEVISION = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
CONVERTED = {
    "llava_llama": "llava-hf/llava-1.5-7b-hf or llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava_mpt": "llava-hf/llava-1.5-7b-hf",
    "llava_qwen": f"{ONEVISION} or llava-hf/llava-interleave-qwen-7b-hf",
    "llava_qwen2": f"{ONEVISION}; FastVLM: apple/FastVLM-1.5B converted by transformers",
    "internvl_chat": "OpenGVLab/InternVL3-8B-hf (each InternVL3 has its twin that ends in -hf)",
    "llavaonevision1_5": f"{ONEVISION} (its successor has no converted form: its tower reads patches of any grid)",
    "bunny-llama": "a host of another family",
    "cambrian_llama": "a host of another family",
}
"""model_type of layouts that belong to another code base, and the repositories of the same models that go in."""


def suggest_conversion(model_type: object) -> str:
    """What somebody can do whose host is of a model_type that no family here has."""
    if model_type in CONVERTED:
        return (
            "this is the layout of another code base; pass the same model converted to transformers, "
            f"such as {CONVERTED[model_type]}"
        )
    if isinstance(model_type, str) and model_type in CONFIG_MAPPING:
        return (
            "transformers knows it, but it is not described here: a family needs a description in mllm_bridge/hosts/ "
            "(where tower and projector sit in memory and on disk, which features it reads, how it counts image "
            "tokens, what its config and processor have to be told)"
        )
    return (
        "transformers does not know this type by itself; look for the same model converted to it (such repositories "
        "often end in -hf, as llava-hf/llava-1.5-7b-hf)"
    )
