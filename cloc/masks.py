"""Where a mask lies on the model's square canvas.

On disk and in a user's hands a mask is (H, W) pixels of the original image; inside it is its coverage of each cell of a
raster over the padded canvas, in [0, 1]. Averaging a raster over blocks gives the coverage of the coarser raster
exactly, so a mask may be put onto the canvas first and onto the tower's patches later.
"""

from __future__ import annotations

import numpy as np
import torch

from cloc.images import Placement

TOUCHED = 1e-6
"""Coverage above this is more than rounding; one pixel of a very large image covers more of a cell."""


def as_mask(mask: object, width: int, height: int) -> np.ndarray:
    """One mask as (H, W) bool.

    Args:
        mask: (H, W) bool, or integers of which 0 is outside; an array, tensor or picture of the image's own size.
        width: of the image, pixels.
        height: of the image, pixels.

    Raises:
        ValueError: another size than the image's, fractions, or not one pixel inside; the message lacks the mask's
            name, which the caller knows.
    """
    array = np.asarray(mask)
    if array.shape != (height, width):
        turned = "; it is turned, pass mask.T" if array.shape == (width, height) else ""
        raise ValueError(
            f"expected a mask of its image's {height} x {width} pixels (height x width), got shape {array.shape}"
            f"{turned or '; resize it to the image, or cut the same part out of both'}"
        )
    if array.dtype.kind not in "biu":
        raise ValueError(f"expected bool or integers (0 is outside), got {array.dtype}; pass mask > 0.5")
    inside = array != 0
    if not inside.any():
        raise ValueError("expected at least one pixel inside, got an empty mask; leave it out")
    return inside


def place_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Put a mask onto the padded square canvas.

    Args:
        mask: (H, W) bool, pixels of the original image.
        size: cells on each side of the raster.

    Returns:
        (size, size) float32 in [0, 1]: the share of each cell that the mask covers, without aliasing.
    """
    height, width = mask.shape
    placement = Placement(width, height)
    x, y = placement.offset
    edges = np.linspace(0.0, placement.side, size + 1)
    rows = _sums_between(mask.astype(np.float64), np.clip(edges - y, 0, height))
    covered = _sums_between(rows.T, np.clip(edges - x, 0, width)).T
    return np.clip(covered * (size / placement.side) ** 2, 0.0, 1.0).astype(np.float32)


def _sums_between(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n, ...) values of unit cells and (k + 1,) edges in [0, n] to (k, ...) integrals between neighbouring edges."""
    running = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(axis=0)])
    whole = np.minimum(edges.astype(np.int64), len(values) - 1)
    fraction = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    return np.diff(running[whole] + fraction * (running[whole + 1] - running[whole]), axis=0)


def mask_extents(cover: torch.Tensor) -> torch.Tensor:
    """The boxes around masks.

    Args:
        cover: (..., rows, columns) coverage of the canvas.

    Returns:
        (..., 4) xyxy in [0, 1] of the canvas, along the borders of cells that are touched; zeros where none is.
    """
    touched = cover > TOUCHED
    rows, columns = touched.any(dim=-1), touched.any(dim=-2)
    sides = []
    for line in (columns, rows):
        length, flags = line.shape[-1], line.to(torch.uint8)
        first = flags.argmax(dim=-1)
        last = length - flags.flip(-1).argmax(dim=-1)
        sides.append((first / length, last / length))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=-1) * rows.any(dim=-1, keepdim=True)
