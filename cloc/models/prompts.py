"""What is asked of images, put into one batch: boxes, points and masks side by side.

Letters: B images, M prompts an image, of which Mb boxes, Mp points and Mm masks, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from cloc.masks import mask_extents
from cloc.structures import PROMPT_KINDS


class Prompts(NamedTuple):
    """Mixed prompts.

    Attributes:
        kinds: (B, M) int64 rows of `PROMPT_KINDS`.
        coords: (B, M, 4) in [0, 1] of the canvas: xyxy of a box or of a mask's extent; x, y, x, y of a point.
        patch_coverage: (B, M, rows, columns) share of each patch that a mask covers; zeros for the other kinds.
        real: (B, M) bool, False for padding.
    """

    kinds: torch.Tensor
    coords: torch.Tensor
    patch_coverage: torch.Tensor
    real: torch.Tensor


def gather_prompts(
    boxes: torch.Tensor | None,
    boxes_mask: torch.Tensor | None,
    points: torch.Tensor | None,
    points_mask: torch.Tensor | None,
    masks: torch.Tensor | None,
    masks_mask: torch.Tensor | None,
    grid: tuple[int, int],
) -> Prompts:
    """Boxes, then points, then masks of each image in one batch; see `ClocVisionModel.get_region_features`.

    Raises:
        ValueError: nothing is asked, or shapes do not fit.
    """
    asked = [("box", boxes, boxes_mask), ("point", points, points_mask), ("mask", masks, masks_mask)]
    parts = [_gather_kind(kind, values, real, grid) for kind, values, real in asked if values is not None]
    if not parts:
        raise ValueError("get_region_features: expected boxes, points or masks, got none of them")
    images = [len(part.kinds) for part in parts]
    if len(set(images)) != 1:
        raise ValueError(f"get_region_features: expected prompts for equally many images, got {images} of each kind")
    return Prompts(*(torch.cat(fields, dim=1) for fields in zip(*parts, strict=True)))


def _gather_kind(kind: str, values: torch.Tensor, real: torch.Tensor | None, grid: tuple[int, int]) -> Prompts:
    plural = {"box": "boxes", "point": "points", "mask": "masks"}[kind]
    shape = {"box": "(B, M, 4)", "point": "(B, M, 2)", "mask": "(B, M, rows, columns)"}[kind]
    last = {"box": 4, "point": 2}.get(kind)
    if values.ndim != (4 if last is None else 3) or (last is not None and values.shape[-1] != last):
        raise ValueError(f"{plural}: expected {shape}, got {tuple(values.shape)}; pass what the processor gives")
    head = values.shape[:2]
    if real is not None and real.shape != head:
        raise ValueError(f"{plural}_mask: expected {tuple(head)}, got {tuple(real.shape)}")
    patch_coverage = _resize_to_grid(values, grid) if kind == "mask" else values.new_zeros(*head, *grid)
    coords = {"box": lambda: values, "point": lambda: values.repeat(1, 1, 2), "mask": lambda: mask_extents(values)}
    return Prompts(
        torch.full(head, PROMPT_KINDS.index(kind), device=values.device),
        coords[kind]().to(patch_coverage.dtype),
        patch_coverage,
        torch.ones(head, dtype=torch.bool, device=values.device) if real is None else real.bool(),
    )


def _resize_to_grid(coverage: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, M, rows, columns) coverage of a raster to that of the patches, into which it must divide."""
    sides = tuple(coverage.shape[-2:])
    if any(side % patches for side, patches in zip(sides, grid, strict=True)):
        raise ValueError(
            f"masks: expected a raster that divides into {grid[0]} x {grid[1]} patches, got {sides[0]} x {sides[1]}; "
            "pass what the processor gives, which has the model's image size"
        )
    blocks = tuple(side // patches for side, patches in zip(sides, grid, strict=True))
    return F.avg_pool2d(coverage if coverage.is_floating_point() else coverage.float(), blocks)


def check_kinds(asked: Sequence[str], known: Sequence[str]) -> None:
    """Refuse kinds of prompts that an encoder was not made for.

    Raises:
        ValueError: the message names what to train.
    """
    unknown = [kind for kind in asked if kind not in known]
    if unknown:
        wanted = ",".join([*known, *unknown])
        raise ValueError(
            f"this encoder answers the prompts {', '.join(known)}; it was not trained with {unknown[0]} prompts: "
            f"train with model.prompter.prompts=[{wanted}]"
        )
