"""The inverse temperature of a contrast: learnt as its logarithm, at most 100 (CLIP)."""

from __future__ import annotations

import math
from typing import Any

import torch

MAX_LOG_SCALE = math.log(100.0)


def inverse_temperature(log_scale: torch.Tensor) -> torch.Tensor:
    """Scalar `min(exp(log_scale), 100)` of a (1,) parameter.

    The parameter may come down again from above the cap: a plain clamp would give it no gradient there for ever. (CLIP
    cuts the parameter after each step instead, which DeepSpeed's flat copies do not allow.)
    """
    return _Capped.apply(log_scale).exp()[0]


class _Capped(torch.autograd.Function):
    """The smaller of a value and the cap; above it the gradient passes where a step against it leads down."""

    @staticmethod
    def forward(ctx: Any, log_scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(log_scale)
        return log_scale.clamp(max=MAX_LOG_SCALE)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (log_scale,) = ctx.saved_tensors
        return torch.where((log_scale <= MAX_LOG_SCALE) | (grad > 0), grad, torch.zeros_like(grad))
