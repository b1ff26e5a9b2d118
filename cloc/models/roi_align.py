"""RoI-Align instead of the Prompter (CLOC Table 2, rows 4, 9 and 14): the mean of the patches under a box.

The ablation twin of `Prompter`, with the same methods for boxes. It has no phrase prompts, so a model with it has no
box head and no grounding loss. The paper names RoI-Align and no more; ours reads the same tokens through the same norm,
gives 1 x 1 bins (torchvision, aligned, about one sample a patch), and its only other weights are the projection.

Letters: B images, M boxes an image, N image tokens, D width, E shared embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from cloc.comm import at_least_fp32


class ImageMap(NamedTuple):
    """What is kept of an image: `map` (B, D, rows, columns), at least fp32."""

    map: torch.Tensor


class RoiAlignPrompter(nn.Module):
    """Turns boxes into vectors of the image by averaging what lies under them.

    Args:
        width: D, the tower's width.
        embed_dim: E, width of the result.
    """

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embed_dim, bias=False)

    def embed_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """(..., 4) xyxy in [0, 1] of the canvas to (..., 1, 4): a box is its own prompt."""
        return boxes.unsqueeze(-2)

    def embed_phrases(self, phrases: torch.Tensor) -> torch.Tensor:
        """Refused: RoI-Align pools under boxes, and a phrase has none."""
        raise ValueError(
            f"prompter.kind roi_align: expected box prompts, got {tuple(phrases.shape)} phrases; "
            "train with model.prompter.kind=attention for phrase prompts"
        )

    def prepare_image(self, tokens: torch.Tensor, grid: tuple[int, int]) -> ImageMap:
        """Read (B, N, D) patch tokens, taken before the tower's final norm, of a rows x columns grid."""
        return ImageMap(at_least_fp32(self.input_norm(tokens)).transpose(1, 2).unflatten(2, grid))

    def forward(self, prompts: torch.Tensor, image: ImageMap) -> torch.Tensor:
        """Pooled vectors, before the projection.

        Args:
            prompts: (B, M, 1, 4) from `embed_boxes`.
            image: from `prepare_image`.

        Returns:
            (B, M, D); zeros for a box without area.
        """
        images, count = prompts.shape[:2]
        rows, columns = image.map.shape[-2:]
        cells = prompts[:, :, 0].to(image.map.dtype) * image.map.new_tensor([columns, rows, columns, rows])
        owner = torch.arange(images, device=prompts.device, dtype=cells.dtype).repeat_interleave(count)
        rois = torch.cat([owner.unsqueeze(1), cells.flatten(0, 1)], dim=1)
        pooled = roi_align(image.map, rois, output_size=1, aligned=True)
        return pooled.view(images, count, image.map.shape[1])

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """(..., D) pooled vectors to (..., E), unit norm."""
        return F.normalize(self.projection(pooled), dim=-1)
