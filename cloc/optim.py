"""Service room: AdamW's parameter groups and the learning rate of a step (CLOC Table A)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float, lr_scales: Mapping[str, float]) -> list[dict]:
    """Groups for AdamW, each with its `lr_scale`.

    Vectors and scalars (norms, biases, temperatures) and position codes are not decayed.

    Args:
        model: its trainable parameters are grouped.
        weight_decay: of the matrices.
        lr_scales: rate over the base rate for parameters whose name starts with a key, such as `text.`; 1 elsewhere.
    """
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim < 2 or "position_embedding" in name or "corner_type" in name else weight_decay
        scale = next((value for prefix, value in lr_scales.items() if name.startswith(prefix)), 1.0)
        group = groups.setdefault((decay, scale), {"params": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
    return list(groups.values())


def make_adamw(groups: list[dict], lr: float, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    """AdamW in its fused form."""
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The base rate of a step: linear to `peak` over `warmup` steps, then a half cosine to 0 at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
