"""The deformable module (DetCLIPv2 4.1): a modulated deformable convolution (DCNv2) on the pyramid, whose offsets and
modulation are computed from the regression branch. It is the path by which image-text pairs, which have no box loss,
send a gradient into the regression branch.

Letters: B images, F and G channels, H W rows and columns.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from cloc.comm import at_least_fp32


class DeformableConv(nn.Module):
    """One 3x3 convolution that looks where the regression branch points.

    With offsets of zero and a modulation of one it is a plain 3x3 convolution; the modulation is twice a sigmoid, so
    that a silent guide gives exactly that. `offset` starts small and not at zero: from exactly zero weights the first
    step would send nothing through to the guide.

    Args:
        width: F, channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.offset = nn.Conv2d(width, 27, 3, padding=1)

    def forward(self, features: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        """Sample the features where the guide says.

        Args:
            features: (B, F, H, W) level of the pyramid.
            guide: (B, F, H, W) output features of the regression branch.

        Returns:
            (B, F, H, W) in the features' type; computed in at least float32, since torchvision's op knows no bfloat16.
        """
        predicted = at_least_fp32(self.offset(guide))
        shifts, modulation = predicted[:, :18], 2.0 * predicted[:, 18:].sigmoid()
        with torch.autocast(features.device.type, enabled=False):
            weight = self.conv.weight.to(predicted.dtype)
            # On a CPU torchvision's backward pass takes most of a training step, grid_sample's a fifth of that.
            convolve = convolve_sampled if features.device.type == "cpu" else convolve_torchvision
            return convolve(features.to(predicted.dtype), shifts, modulation, weight).to(features.dtype)


def convolve_torchvision(
    features: torch.Tensor, shifts: torch.Tensor, modulation: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The modulated deformable 3x3 convolution as torchvision has it.

    Args:
        features: (B, F, H, W).
        shifts: (B, 18, H, W) down and across in cells, for each of the nine taps in turn.
        modulation: (B, 9, H, W) factor of each tap.
        weight: (G, F, 3, 3).

    Returns:
        (B, G, H, W).
    """
    return deform_conv2d(features, shifts, weight, padding=1, mask=modulation)


def convolve_sampled(
    features: torch.Tensor, shifts: torch.Tensor, modulation: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The same as `convolve_torchvision`, from `grid_sample` and one matrix product."""
    batch, channels, height, width = features.shape
    taps = torch.arange(9, device=features.device)
    down = torch.arange(height, device=features.device)[:, None] + (taps // 3 - 1)[:, None, None]
    across = torch.arange(width, device=features.device) + (taps % 3 - 1)[:, None, None]
    shifts = shifts.view(batch, 9, 2, height, width)
    # grid_sample counts from -1 at the outer edge of the first cell to 1 at that of the last.
    x = (2 * (across + shifts[:, :, 1]) + 1) / width - 1
    y = (2 * (down + shifts[:, :, 0]) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1).view(batch, 9 * height, width, 2)
    sampled = F.grid_sample(features, grid, padding_mode="zeros", align_corners=False)
    sampled = sampled.view(batch, channels, 9, height, width) * modulation.unsqueeze(1)
    # bmm and not @, which folds the batch into the rows and copies nine times the map for it, forward and backward.
    found = torch.bmm(weight.flatten(1).expand(batch, -1, -1), sampled.view(batch, channels * 9, height * width))
    return found.view(batch, len(weight), height, width)
