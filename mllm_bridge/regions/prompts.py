"""What a `<region>` may stand for, and where it lies on the canvas that the host's image processor makes.

Every prompt becomes a box first, as in the paper's CLOC* (a point the window that Ferret's protocol gives it, a mask
its enclosing box).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cloc.boxes import FloatArray, as_boxes, cut_at_border
from cloc.formats.segmentation import decode_rle
from cloc.images import Placement
from cloc.structures import Box, DataError
from cloc.towers.probe import crops_borders

POINT_WINDOW = 11
"""Side in pixels of the window around a point."""


def find_box(prompt: object, size: tuple[int, int]) -> Box:
    """The box of a prompt, cut at the image's border.

    Args:
        prompt: `[x0, y0, x1, y1]` or `{"box": ...}` in pixels; `{"point": [x, y]}`; `{"mask": M}` with a (H, W) array
            or COCO's RLE (`{"size": [H, W], "counts": ...}`).
        size: (width, height) of the image in pixels.

    Raises:
        ValueError: it is none of these, empty, or lies outside the image.
    """
    if isinstance(prompt, Mapping):
        kinds = [kind for kind in ("box", "point", "mask") if kind in prompt]
        if len(kinds) != 1:
            raise ValueError(f"region: expected one of box, point and mask, got {sorted(map(str, prompt))}")
        kind, value = kinds[0], prompt[kinds[0]]
    else:
        kind, value = "box", prompt
    if kind == "mask":
        return inside(_mask_box(value, size), size, "region")
    numbers = np.asarray(value, dtype=np.float64)
    wanted = 4 if kind == "box" else 2
    if numbers.shape != (wanted,) or not np.isfinite(numbers).all():
        raise ValueError(f"region: expected {wanted} finite numbers in pixels for a {kind}, got {value!r}")
    if kind == "point":
        x, y = numbers.tolist()
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            raise ValueError(f"region: the point ({x:g}, {y:g}) lies outside its image of {size[0]} x {size[1]} pixels")
        half = POINT_WINDOW / 2
        return inside((x + 0.5 - half, y + 0.5 - half, x + 0.5 + half, y + 0.5 + half), size, "region")
    return inside(tuple(numbers.tolist()), size, "region")


def _mask_box(mask: Any, size: tuple[int, int]) -> Box:
    if isinstance(mask, Mapping):
        counts = mask.get("counts")
        counts = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
        array = decode_rle({"size": list(mask.get("size", ())), "counts": counts}, *size)
    else:
        array = np.asarray(mask)
    if array.shape != (size[1], size[0]):
        raise ValueError(f"region: expected a mask of {size[1]} x {size[0]} (rows x columns), got {array.shape}")
    rows, columns = np.flatnonzero(array.any(axis=1)), np.flatnonzero(array.any(axis=0))
    if not len(rows):
        raise ValueError("region: expected a mask with at least one pixel set, got an empty one")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def inside(box_xyxy: Box, size: tuple[int, int], key: str) -> Box:
    """A box cut at the border of its image.

    Raises:
        DataError: it has no width or height, or nothing of it lies inside.
    """
    x0, y0, x1, y1 = box_xyxy
    if x1 <= x0 or y1 <= y0:
        raise DataError("empty_region", f"{key}: expected x1 > x0 and y1 > y0 (xyxy pixels), got {list(box_xyxy)}")
    cut = cut_at_border(box_xyxy, *size)
    if cut is None:
        raise DataError(
            "region_outside", f"{key}: region {list(box_xyxy)} lies outside its image of {size[0]} x {size[1]} pixels"
        )
    return cut


def map_to_canvas(image_processor: Any, boxes_xyxy: Sequence[Box], size: tuple[int, int]) -> FloatArray:
    """(M, 4) xyxy pixels of the original to xyxy in [0, 1] of what the image processor makes of the image.

    Args:
        image_processor: pads to a square, or resizes to one.
        boxes_xyxy: pixels of the original image.
        size: (width, height) of the original image in pixels.

    Raises:
        ValueError: the processor crops, so that parts of the image are not seen.
    """
    if crops_borders(image_processor):
        raise ValueError(
            "regions: the host's image processor crops its images, so regions at their borders would not be seen; "
            "swap in an encoder that pads (every export of this kit does)"
        )
    if getattr(image_processor, "do_pad", None):
        return Placement(*size).to_canvas(boxes_xyxy)
    return as_boxes(boxes_xyxy) / np.array([*size, *size], dtype=np.float64)
