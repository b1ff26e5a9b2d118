"""Maps of a tower to levels of one width at doubling strides: a feature pyramid on Swin's stages, the simple pyramid on
a plain ViT's one map.

Letters: B images, C channels of a map, F width of the pyramid, H W rows and columns of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each location: towers give maps from before their own final norm."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Finer(nn.Sequential):
    """Twice the rows and columns, half the channels, `doublings` times over (ViTDet's way to finer levels)."""

    def __init__(self, channels: int, doublings: int) -> None:
        steps: list[nn.Module] = []
        for index in range(doublings):
            wide, narrow = channels >> index, channels >> (index + 1)
            steps += [nn.ConvTranspose2d(wide, narrow, kernel_size=2, stride=2), ChannelNorm(narrow), nn.GELU()]
        super().__init__(*steps[: -2 if doublings else None])


class Pyramid(nn.Module):
    """Levels of one width.

    A level at a stride of the tower takes that map through a 1x1 convolution; a finer one takes the finest map through
    transposed convolutions; a coarser one is a strided convolution of the level before it. Where the tower has several
    maps, each level also gets the next coarser one, enlarged. A 3x3 convolution ends each level.

    Args:
        spec: (stride in pixels, channels) of each map of the tower, from fine to coarse, strides doubling.
        strides: of the levels in pixels, from fine to coarse, each twice the one before.
        width: F.

    Raises:
        ValueError: the strides do not double, or the finest is no power-of-two part or multiple of the tower's.
    """

    def __init__(self, spec: Sequence[tuple[int, int]], strides: Sequence[int], width: int) -> None:
        super().__init__()
        strides, last = tuple(strides), spec[-1][0]
        if not strides or any(fine * 2 != coarse for fine, coarse in pairwise(strides)):
            raise ValueError(f"detector strides: expected each to be twice the one before, got {list(strides)}")
        if not _power_of_two_apart(strides[0], last):
            near = [stride for stride, _ in spec]
            raise ValueError(
                f"detector strides: {list(strides)} do not meet the tower's ({near}); start with {near[0]} halved or "
                "doubled as often as you like"
            )
        levels = [min(strides[0], last)]
        while levels[-1] < max(strides[-1], last):
            levels.append(levels[-1] * 2)
        self.sources = [self._source(stride, spec) for stride in levels if stride <= last]
        self.kept = [index for index, stride in enumerate(levels) if strides[0] <= stride <= strides[-1]]
        self.top_down = len(spec) > 1
        # Maps finer than the first level feed nothing here, so they get no norm.
        used = {which for which, _ in self.sources}
        self.norms = nn.ModuleDict({str(which): ChannelNorm(spec[which][1]) for which in sorted(used)})
        self.finer = nn.ModuleList(Finer(spec[which][1], doublings) for which, doublings in self.sources)
        self.lateral = nn.ModuleList(nn.Conv2d(spec[which][1] >> times, width, 1) for which, times in self.sources)
        smoothed = {index for index in self.kept if index < len(self.sources)}
        if len(levels) > len(self.sources):
            smoothed.add(len(self.sources) - 1)  # the coarser levels start from it
        self.smooth = nn.ModuleDict({str(index): nn.Conv2d(width, width, 3, padding=1) for index in sorted(smoothed)})
        self.coarser = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(len(levels) - len(self.sources))
        )

    @staticmethod
    def _source(stride: int, spec: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Which map a level comes from and how often its rows and columns are doubled."""
        for which, (theirs, _) in enumerate(spec):
            if theirs >= stride:
                return which, (theirs // stride).bit_length() - 1
        raise AssertionError("a level coarser than the tower has no source")

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps (B, C, H, W) of the tower, as in `spec`, to one (B, F, H, W) for each stride."""
        normed = {int(which): norm(maps[int(which)]) for which, norm in self.norms.items()}
        levels = [
            lateral(finer(normed[which]))
            for (which, _), finer, lateral in zip(self.sources, self.finer, self.lateral, strict=True)
        ]
        if self.top_down:
            for index in range(len(levels) - 1, 0, -1):
                levels[index - 1] = levels[index - 1] + F.interpolate(levels[index], size=levels[index - 1].shape[-2:])
        for index, smooth in self.smooth.items():
            levels[int(index)] = smooth(levels[int(index)])
        for coarser in self.coarser:
            levels.append(coarser(levels[-1]))
        return [levels[index] for index in self.kept]


def _power_of_two_apart(one: int, other: int) -> bool:
    small, large = sorted((one, other))
    return small > 0 and large % small == 0 and (large // small).bit_count() == 1
