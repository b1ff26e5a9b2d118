"""What another image size or another normalisation asks of weights that were trained without them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers import resample_abs_pos_embed

from cloc.images import CLIP_MEAN, CLIP_STD

POSITIONS = ("embeddings.position_embedding.weight", "embeddings.position_embeddings")
"""Where transformers' ViTs and Swins keep learned positions, one a patch."""
PATCHES = (
    "embeddings.patch_embedding",
    "embeddings.patch_embeddings.projection",
    "timm_model.patch_embed.proj",
)
"""The first convolution of each kind of tower."""


def fit_positions(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str:
    """Interpolate learned positions to another grid, in place (bicubic with antialiasing, as timm and open_clip do).

    Args:
        state: weights of a tower; changed where its grid differs.
        wanted: the state of the tower they are for.

    Returns:
        What was done, empty where nothing was.
    """
    for name in POSITIONS:
        if name not in state or name not in wanted or state[name].shape == wanted[name].shape:
            continue
        table, shape = state[name], wanted[name].shape
        if table.shape[-1] != shape[-1]:
            return ""
        old, new = math.isqrt(table.shape[-2]), math.isqrt(shape[-2])
        prefix = table.shape[-2] - old * old
        if prefix > 1 or shape[-2] - new * new != prefix:
            return ""
        rows = table.reshape(1, -1, table.shape[-1])
        fitted = resample_abs_pos_embed(rows, [new, new], [old, old], num_prefix_tokens=prefix)
        state[name] = fitted.reshape(shape)
        return f"positions interpolated from {old} x {old} to {new} x {new}"
    return ""


def fit_normalisation(state: dict[str, torch.Tensor], mean: Sequence[float], std: Sequence[float]) -> str:
    """Let weights trained with another mean and standard deviation read images normalised as CLIP's, in place.

    The change is linear, so the first convolution takes it up without any loss: each channel's weights are scaled by
    the quotient of the deviations, and the bias moves by what the means differ.

    Returns:
        What was done, empty where nothing was.

    Raises:
        ValueError: the first convolution has no bias to move, and there are no positions that could take it up.
    """
    close = all(abs(a - b) < 1e-4 for a, b in zip((*mean, *std), (*CLIP_MEAN, *CLIP_STD), strict=True))
    name = next((name for name in PATCHES if f"{name}.weight" in state), None)
    if close or name is None:
        return ""
    said = f"normalisation with mean {_numbers(mean)} and deviation {_numbers(std)}"
    weight = state[f"{name}.weight"].double()
    theirs, ours = (torch.tensor(v, dtype=torch.float64) for v in ((mean, std), (CLIP_MEAN, CLIP_STD)))
    moved = torch.einsum("dchw,c->d", weight, (ours[0] - theirs[0]) / theirs[1])
    _set(state, f"{name}.weight", weight * (ours[1] / theirs[1]).view(1, 3, 1, 1))
    if f"{name}.bias" in state:
        _set(state, f"{name}.bias", state[f"{name}.bias"].double() + moved)
        return f"{said} taken up by the first convolution"
    table = next((table for table in (*POSITIONS, "timm_model.pos_embed") if table in state), None)
    if table is None:
        raise ValueError(f"{said} cannot be taken up: {name} has no bias; start from weights with CLIP's normalisation")
    # Every patch gets its position added, so a constant fits in there as well; CLS has no pixels.
    rows = state[table].double().clone()
    rows[..., -(math.isqrt(rows.shape[-2]) ** 2) :, :] += moved
    _set(state, table, rows)
    return f"{said} taken up by the first convolution and the positions"


def _set(state: dict[str, torch.Tensor], name: str, value: torch.Tensor) -> None:
    state[name] = value.to(state[name].dtype)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
