"""Where timm keeps the weights of a Swin that transformers calls otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

_OUTER = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.norm": "patch_embed.norm",
    "layernorm": "norm",
}
_PARTS = {
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_TABLE = "attention.relative_position_bias.relative_position_bias_table"
_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.(.+)")
_MERGE = re.compile(r"encoder\.layers\.(\d+)\.downsample\.(.+)")


def timm_swin(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a transformers Swin without learned positions, by timm's names.

    timm merges patches at the start of a stage, transformers at the end of the one before; timm has query, key and
    value in one matrix.

    Raises:
        ValueError: a parameter has no counterpart.
    """
    theirs: dict[str, torch.Tensor] = {}
    for name, value in ours.items():
        module, _, kind = name.rpartition(".")
        if module in _OUTER:
            theirs[f"{_OUTER[module]}.{kind}"] = value
        elif found := _MERGE.fullmatch(name):
            theirs[f"layers.{int(found[1]) + 1}.downsample.{found[2]}"] = value
        elif found := _BLOCK.fullmatch(name):
            theirs.update(_block(f"layers.{found[1]}.blocks.{found[2]}", name, found[3], ours))
        else:
            raise ValueError(f"--format timm: its Swin has no counterpart of {name}; use --format transformers")
    return theirs


def _block(place: str, name: str, part: str, ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if part == _TABLE:
        return {f"{place}.attn.relative_position_bias_table": ours[name]}
    module, _, kind = part.rpartition(".")
    if module in _PARTS:
        return {f"{place}.{_PARTS[module]}.{kind}": ours[name]}
    if module == "attention.q_proj":
        parts = [ours[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
        return {f"{place}.attn.qkv.{kind}": torch.cat(parts)}
    if module in ("attention.k_proj", "attention.v_proj"):
        return {}
    raise ValueError(f"--format timm: its Swin has no counterpart of {name}; use --format transformers")
