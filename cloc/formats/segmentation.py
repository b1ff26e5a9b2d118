"""COCO's and LVIS's `segmentation` (polygons or runs) as the compressed RLE that shards hold, and RLE as a mask.

pycocotools draws and encodes; `decode_rle` alone decodes what a file or a user brings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cloc.formats.numbers import parse_whole
from cloc.structures import DataError


def to_rle(segmentation: object, width: int, height: int) -> dict[str, Any]:
    """`{"size": [height, width], "counts": COCO's compressed text}`.

    Args:
        segmentation: polygons `[[x0, y0, x1, y1, ...], ...]` in pixels, which add up; or COCO's RLE, its counts a list
            of run lengths or compressed text, which is passed on as it is.
        width: of the image in pixels.
        height: of the image in pixels.

    Raises:
        DataError: mask_missing where there is none; bad_mask where it cannot be drawn, or is of another size.
    """
    if not segmentation:
        raise DataError("mask_missing", "segmentation: expected polygons or RLE, got none")
    if isinstance(segmentation, Mapping):
        return _check_runs(segmentation, width, height)
    if not isinstance(segmentation, list) or not all(_is_polygon(one, width, height) for one in segmentation):
        raise DataError("bad_mask", f"segmentation: expected polygons of 3 corners and more, got {segmentation!r:.80}")
    drawn = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return {"size": [height, width], "counts": drawn["counts"].decode("ascii")}


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """The same for (H, W) bool pixels."""
    drawn = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in mask.shape], "counts": drawn["counts"].decode("ascii")}


def _is_polygon(corners: object, width: int, height: int) -> bool:
    """Whether pycocotools can draw it: it reserves memory by the length of an outline, and checks nothing."""
    if not isinstance(corners, list) or len(corners) < 6 or len(corners) % 2:
        return False
    if not all(isinstance(value, (int, float)) and abs(value) < math.inf for value in corners):
        return False
    far = 2 * max(width, height)
    return -far <= min(corners) and max(corners) <= far + max(width, height)


def _check_runs(rle: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    counts = rle.get("counts")
    size = rle.get("size")
    sized = isinstance(size, (list, tuple)) and [parse_whole(side) for side in size] == [height, width]
    if not sized or not (isinstance(counts, list) or (isinstance(counts, str) and counts.isascii())):
        raise DataError("bad_mask", f"segmentation: expected RLE of size [{height}, {width}], got {str(rle)[:80]}")
    if isinstance(counts, str):  # whoever reads it checks it: pycocotools would read behind the end of a cut one
        return {"size": [height, width], "counts": counts}
    if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != width * height:
        raise DataError("bad_mask", f"segmentation: expected runs of {width * height} pixels, got {str(counts)[:80]}")
    drawn = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": drawn["counts"].decode("ascii")}


def decode_rle(rle: Any, width: int, height: int) -> np.ndarray:
    """A mask from the shard format's COCO RLE: `{"size": [H, W], "counts": compressed text or list of run lengths}`.

    Args:
        rle: what KEY.json holds.
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        (H, W) bool with at least one pixel inside.

    Raises:
        DataError: it is no RLE, of another size than its image, or empty.
    """
    if not isinstance(rle, Mapping) or rle.get("size") not in ([height, width], (height, width)):
        raise DataError("bad_mask", f"mask: expected COCO RLE with size [{height}, {width}], got {str(rle)[:80]}")
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = _unpack_runs(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and run >= 0 for run in counts):
        raise DataError("bad_mask", f"mask: expected counts as COCO's text or a list, got {str(rle)[:80]}")
    if sum(counts) != height * width:
        raise DataError("bad_mask", f"mask: expected runs of {height * width} pixels together, got {sum(counts)}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    if not flat.any():
        raise DataError("bad_mask", "mask: not one pixel is inside")
    return flat.reshape(width, height).T  # COCO's runs go down the columns


def _unpack_runs(text: str) -> list[int] | None:
    """Run lengths from COCO's compressed text, None where it is none.

    pycocotools reads it faster, but gives back memory that nobody wrote where the text ends early. A run is written in
    groups of five bits from the lowest on, each plus 48; 32 says that more follow, 16 in the last one a negative sign.
    From the third run on it is the difference to the run two before.
    """
    counts, value, shift = list[int](), 0, 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 30:
            return None
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        value -= (1 << shift) if group & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts if shift == 0 else None
