"""Pyramid, head and the scale and bias of the class logits: everything between a tower's maps and `DetectionOutputs`.

Letters: B images, K anchors, U concepts, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from cloc.models.configuration import Objectness
from cloc.models.detector.anchors import decode, make_anchors
from cloc.models.detector.deformable import DeformableConv
from cloc.models.detector.head import AtssHead
from cloc.models.detector.pyramid import Pyramid
from cloc.models.temperature import inverse_temperature


@dataclass(frozen=True, slots=True)
class Detected:
    """What the detector gives for a batch of canvases; the fields are those of `DetectionOutputs`."""

    class_features: torch.Tensor
    pred_boxes: torch.Tensor
    centerness: torch.Tensor
    anchors: torch.Tensor
    level_sizes: torch.Tensor
    objectness: torch.Tensor | None = None


class AtssDetector(nn.Module):
    """ATSS with class features (DetCLIPv2 4.1).

    Args:
        spec: (stride, channels) of each map of the tower.
        embed_dim: E, the space of the concepts.
        width, strides, num_convs, anchor_scale, deformable, normalize: as in `ClocDetectorConfig`.
        log_scale: first logarithm of the similarity's scale; None: -ln(E) / 2 for the dot product, ln 10 for a cosine.
        prior: probability that the fresh head gives to every (anchor, concept).
        objectness: as in `ClocDetectorConfig`.

    Raises:
        ValueError: strides that do not fit the tower, or a prior outside (0, 1).
    """

    def __init__(
        self,
        spec: Sequence[tuple[int, int]],
        embed_dim: int,
        width: int,
        strides: Sequence[int],
        num_convs: int,
        anchor_scale: float,
        deformable: bool,
        normalize: bool,
        log_scale: float | None,
        prior: float,
        objectness: Objectness = "none",
    ) -> None:
        super().__init__()
        if not 0 < prior < 1:
            raise ValueError(f"detector prior: expected a probability between 0 and 1, got {prior}")
        self.strides, self.anchor_scale, self.normalize = tuple(strides), float(anchor_scale), normalize
        self.first_log_scale = log_scale
        if log_scale is None:
            self.first_log_scale = math.log(10) if normalize else -math.log(embed_dim) / 2
        self.first_bias = -math.log((1 - prior) / prior)
        self.pyramid = Pyramid(spec, strides, width)
        self.first_objectness = self.first_bias if objectness == "foreground" else 0.0
        self.head = AtssHead(width, embed_dim, len(self.strides), num_convs, deformable, objectness != "none")
        # One entry and not none: DeepSpeed's broadcast refuses parameters without a dimension.
        self.logit_scale = nn.Parameter(torch.tensor([float(self.first_log_scale)]))
        self.logit_bias = nn.Parameter(torch.tensor([self.first_bias]))

    def forward(self, maps: Sequence[torch.Tensor], canvas: tuple[int, int]) -> Detected:
        """Detect on canvases of (width, height) pixels from the tower's maps (B, C, H, W)."""
        levels = self.pyramid(maps)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        features, deltas, centerness, objectness = self.head(levels)
        anchors = make_anchors(sizes, self.strides, self.anchor_scale, canvas, features.device)
        counts = torch.tensor([rows * columns for rows, columns in sizes], device=features.device)
        if self.normalize:
            features = F.normalize(features, dim=-1)
        return Detected(features, decode(deltas, anchors), centerness, anchors, counts, objectness)

    def get_scale_and_bias(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scalars: the similarity's factor, at most 100, and what is added to it."""
        return inverse_temperature(self.logit_scale), self.logit_bias[0]


@torch.no_grad()
def init_weights(module: nn.Module) -> None:
    """First weights of a module of the detector; called for every module, children before parents."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_in = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_channels
        init.normal_(module.weight, std=fan_in**-0.5)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, DeformableConv):
        init.normal_(module.offset.weight, std=0.001)
    elif isinstance(module, AtssHead):
        for small in (module.deltas, module.centerness, module.objectness):
            if small is not None:
                init.normal_(small.weight, std=0.01)
        # A rectified unit-variance input has a mean square of one half: class features of unit deviation.
        init.normal_(module.class_projection.weight, std=(2 / module.class_projection.in_channels) ** 0.5)
        init.ones_(module.delta_scale)
    elif isinstance(module, AtssDetector):
        init.constant_(module.logit_scale, module.first_log_scale)
        init.constant_(module.logit_bias, module.first_bias)
        if module.head.objectness is not None:
            init.constant_(module.head.objectness.bias, module.first_objectness)
