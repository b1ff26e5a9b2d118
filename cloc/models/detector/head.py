"""The ATSS head, shared over the pyramid's levels, with a class feature at each location instead of class logits.

Letters: B images, F width, E embedding, H W rows and columns of a level, K locations of all levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from cloc.comm import at_least_fp32
from cloc.models.detector.deformable import DeformableConv


class NormedConv(nn.Sequential):
    """3x3 convolution, GroupNorm (eight channels a group where that divides), ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(width // math.gcd(width, 8), width),
            nn.ReLU(),
        )


class AtssHead(nn.Module):
    """Regression branch (boxes and centerness) and classification branch (class features).

    Args:
        width: F, channels of the pyramid and of both branches.
        embed_dim: E, the space of the concepts.
        num_levels: each has a learnable factor on its deltas.
        num_convs: convolutions of each branch.
        deformable: start the classification branch with a `DeformableConv` that the regression branch's output guides.
        objectness: a class-agnostic score beside centerness, for proposals. It lies on the regression branch, so that
            what has no name in training is not pressed out of the class features.
    """

    def __init__(
        self, width: int, embed_dim: int, num_levels: int, num_convs: int, deformable: bool, objectness: bool = False
    ) -> None:
        super().__init__()
        self.regression = nn.Sequential(*(NormedConv(width) for _ in range(num_convs)))
        self.classification = nn.Sequential(*(NormedConv(width) for _ in range(num_convs)))
        self.deformable = DeformableConv(width) if deformable else None
        self.deformable_norm = nn.GroupNorm(width // math.gcd(width, 8), width) if deformable else None
        self.deltas = nn.Conv2d(width, 4, 3, padding=1)
        self.delta_scale = nn.Parameter(torch.ones(num_levels))
        self.centerness = nn.Conv2d(width, 1, 3, padding=1)
        self.class_projection = nn.Conv2d(width, embed_dim, 1)
        self.objectness = nn.Conv2d(width, 1, 3, padding=1) if objectness else None

    def forward(
        self, levels: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Run both branches on every level.

        Args:
            levels: (B, F, H, W) of each level, from fine to coarse.

        Returns:
            Class features (B, K, E), deltas (B, K, 4), centerness logits (B, K) and objectness logits (B, K) or None,
            at least float32; K runs over the levels, row by row.
        """
        answers = [self._level(features, scale) for features, scale in zip(levels, self.delta_scale, strict=True)]
        classes, deltas, centerness, *objectness = (
            torch.cat([at_least_fp32(answer).flatten(2) for answer in kind], dim=2).transpose(1, 2)
            for kind in zip(*answers, strict=True)
        )
        return classes, deltas, centerness.squeeze(2), objectness[0].squeeze(2) if objectness else None

    def _level(self, features: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        regressed = self.regression(features)
        if self.deformable is not None:
            features = self.deformable_norm(self.deformable(features, regressed)).relu()
        classes = self.class_projection(self.classification(features))
        scores = (self.centerness,) if self.objectness is None else (self.centerness, self.objectness)
        return classes, self.deltas(regressed) * scale, *(score(regressed) for score in scores)
