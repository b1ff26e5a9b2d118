"""AdamW's parameter groups and the learning rate of a step (CLOC Table A).

For a start from existing weights, beyond the paper: rates that fall from layer to layer towards the input, and groups
that rest at first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

UNDECAYED = (
    "position_embedding",  # CLIP, SigLIP, HF's Swin
    "pos_embed",  # timm
    "relative_position_bias_table",  # Swin
    "cls_token",
    "class_embedding",
    "corner_type",
)
"""Parts of names whose tensors are codes and not maps, whatever their shape."""


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    lr_scales: Mapping[str, float],
    starts: Mapping[str, int] | None = None,
    ramp: int = 0,
) -> list[dict]:
    """Groups for AdamW, each with its `lr_scale`, `start` and `ramp`.

    Vectors and scalars (norms, biases, temperatures) and position codes are not decayed.

    Args:
        model: its trainable parameters are grouped.
        weight_decay: of the matrices.
        lr_scales: rate over the base rate for parameters whose name starts with a key, such as `text.`; 1 elsewhere.
        starts: optimiser step before which such parameters rest, by the start of their name; 0 elsewhere.
        ramp: steps over which the rate of a group that has rested then rises to its own.
    """
    groups: dict[tuple[float, float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim < 2 or any(part in name for part in UNDECAYED) else weight_decay
        scale, start = _by_name(lr_scales, name, 1.0), _by_name(starts or {}, name, 0)
        made = {"params": [], "weight_decay": decay, "lr_scale": scale, "start": start, "ramp": ramp}
        groups.setdefault((decay, scale, start), made)["params"].append(parameter)
    return list(groups.values())


def _by_name(values: Mapping, name: str, default: float) -> float:
    return next((value for prefix, value in values.items() if name.startswith(prefix)), default)


def layer_scales(names: Sequence[str], decay: float) -> dict[str, float]:
    """Rates that fall from a tower's output to its input (layer-wise decay, as in BEiT, arXiv 2106.08254).

    Args:
        names: of a tower's parameters, in the order in which it holds them: embeddings, blocks, what follows.
        decay: rate of a block over that of the block after it; 1 for equal rates.

    Returns:
        For each name its rate over the base rate: 1 after the last block, `decay` in the last of L blocks,
        `decay` ** (L + 1) before the first.
    """
    staged = [re.search(r"(?:layers|stages)\.\d+\.blocks\.\d+\.", name) for name in names]  # a Swin's
    plain = [re.search(r"(?:layers|blocks)\.\d+\.", name) for name in names]
    blocks = [found[0] if found else None for found in (staged if any(staged) else plain)]
    last = max((row for row, block in enumerate(blocks) if block), default=-1)
    scales, passed = {}, list[str]()
    for row, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if block and block not in passed:
            passed.append(block)
        scales[name] = len(passed) if row <= last else len(passed) + 1  # what joins two stages goes with the first
    top = len(passed) + 1
    return {name: decay ** (top - place) for name, place in scales.items()}


def group_rate(group: Mapping, rate: float, step: float) -> float:
    """The rate of a group of `parameter_groups` at an optimiser step whose base rate is `rate`.

    Before its start it is 0, so that neither gradients nor decay move its weights.
    """
    rested = group.get("start", 0)
    if step < rested:
        return 0.0
    rising = min(1.0, (step - rested + 1) / max(group.get("ramp", 0), 1)) if rested else 1.0
    return rate * group["lr_scale"] * rising


def make_adamw(groups: list[dict], lr: float, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    """AdamW in its fused form."""
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The base rate of a step: linear to `peak` over `warmup` steps, then a half cosine to 0 at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
