"""A user's boxes, points and masks, in pixels of the original images, onto the model's canvas: the processor's part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cloc.images import Placement
from cloc.masks import as_mask, place_mask

Size = tuple[int, int]


def place_prompts(name: str, prompts: Sequence[object], sizes: Sequence[Size], canvas: int) -> dict[str, torch.Tensor]:
    """One kind of prompts for a batch of images, padded to the longest list.

    Args:
        name: `boxes`, `points` or `masks`.
        prompts: for each image (M, 4) xyxy, (M, 2) x, y, or M masks of its own size; M may differ and may be 0.
        sizes: (width, height) in pixels of each image.
        canvas: S, side in pixels of the model's canvas.

    Returns:
        `name`: (B, M, 4) or (B, M, 2) in [0, 1] of the canvas, or (B, M, S, S) coverage; `name`_mask: (B, M) bool.

    Raises:
        ValueError: see `ClocProcessor`.
    """
    empty = {"boxes": (4,), "points": (2,), "masks": (canvas, canvas)}[name]
    if name == "boxes":
        placed = [Placement(*size).to_canvas(rows) for rows, size in zip(prompts, sizes, strict=True)]
    elif name == "points":
        placed = [_points(rows, size, image) for image, (rows, size) in enumerate(zip(prompts, sizes, strict=True))]
    else:
        placed = [_masks(m, size, image, canvas) for image, (m, size) in enumerate(zip(prompts, sizes, strict=True))]
    padded = torch.zeros(len(placed), max((len(p) for p in placed), default=0), *empty)
    real = torch.zeros(padded.shape[:2], dtype=torch.bool)
    for row, found in enumerate(placed):
        padded[row, : len(found)] = torch.from_numpy(found)
        real[row, : len(found)] = True
    return {name: padded, f"{name}_mask": real}


def _points(points: object, size: Size, image: int) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(
            f"points of image {image}: expected shape (M, 2), got {array.shape}; pass one (x, y) for each point"
        )
    for number, (x, y) in enumerate(array):
        if not (0 <= x <= size[0] and 0 <= y <= size[1]):
            raise ValueError(
                f"points: point {number} of image {image}, ({x:g}, {y:g}), lies outside its image of {size[0]} x "
                f"{size[1]} pixels; expected x, y in pixels of the original image"
            )
    return Placement(*size).to_canvas(np.tile(array, 2))[:, :2]


def _masks(masks: object, size: Size, image: int, canvas: int) -> np.ndarray:
    placed = np.zeros((len(masks), canvas, canvas), dtype=np.float32)  # type: ignore[arg-type]
    for number, mask in enumerate(masks):  # type: ignore[arg-type, var-annotated]
        try:
            placed[number] = place_mask(as_mask(mask, *size), canvas)
        except ValueError as error:
            raise ValueError(f"masks: mask {number} of image {image}: {error}") from None
    return placed
