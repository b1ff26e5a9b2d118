"""Which kind of prompt a region is asked with in training: its box, a point on it, or its mask.

The draw is a function of (seed, epoch, sample key, region) alone, so that it depends neither on the ranks nor on which
other regions were drawn. A region without a mask is asked with one of the other kinds, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cloc.data.order import draw
from cloc.images import Placement
from cloc.masks import mask_extents, place_mask
from cloc.structures import PROMPT_KINDS, DataError, Region, Sample


@dataclass(frozen=True, slots=True)
class PromptDraw:
    """What regions are asked with.

    Attributes:
        kinds: of `PROMPT_KINDS`; each region is asked with one of them, all equally likely.
        grid: rows and columns of the tower's patches, onto which masks are put.
    """

    kinds: tuple[str, ...]
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DrawnPrompts:
    """The prompts of one sample's m regions; see `Batch` for what the fields mean.

    Attributes:
        kinds: (m,) int64.
        places: (m, 4) float32.
        cover: (m, rows, columns) float32.
    """

    kinds: np.ndarray
    places: np.ndarray
    cover: np.ndarray


def draw_prompts(
    sample: Sample, chosen: Sequence[int], settings: PromptDraw, image_size: int, seed: int, epoch: int
) -> tuple[DrawnPrompts, Counter[str]]:
    """Draw the prompts of a sample's chosen regions.

    Args:
        sample: as read from a shard.
        chosen: rows of its regions.
        settings: what may be drawn.
        image_size: S, side of the canvas in pixels, whose raster the extents of masks follow as at inference.
        seed: the run's seed.
        epoch: how often the data has been seen.

    Returns:
        The prompts, and counts: regions without a mask where masks may be drawn (`no_mask`), and masks that were
        needed and cannot be used (`bad_mask`).
    """
    kinds = np.zeros(len(chosen), dtype=np.int64)
    places = np.zeros((len(chosen), 4), dtype=np.float32)
    cover = np.zeros((len(chosen), *settings.grid), dtype=np.float32)
    counts, placement = Counter[str](), Placement(sample.width, sample.height)
    for row, index in enumerate(chosen):
        region = sample.regions[index]
        random = draw(seed, "prompt", epoch, sample.key, int(index))
        kind, mask = _kind_and_mask(region, sample, settings, random, counts)
        kinds[row] = PROMPT_KINDS.index(kind)
        if kind == "mask":
            raster = place_mask(mask, image_size)
            places[row] = mask_extents(torch.from_numpy(raster)).numpy()
            rows, columns = settings.grid
            blocks = raster.reshape(rows, image_size // rows, columns, image_size // columns)
            cover[row] = blocks.mean(axis=(1, 3))
        elif kind == "point":
            x, y = point_on(region, mask, random)
            places[row] = placement.to_canvas([(x, y, x, y)])[0]
        else:
            places[row] = placement.to_canvas([region.box])[0]
    return DrawnPrompts(kinds, places, cover), counts


def _kind_and_mask(
    region: Region, sample: Sample, settings: PromptDraw, random: np.random.Generator, counts: Counter[str]
) -> tuple[str, np.ndarray | None]:
    """The kind of a region's prompt, and its mask where that kind reads it: points lie on masks as well."""
    told = region.extras.get("mask")
    possible = [kind for kind in settings.kinds if kind != "mask" or told is not None]
    counts["no_mask"] += len(settings.kinds) - len(possible)
    kind = possible[int(random.integers(len(possible)))]
    if kind == "box" or told is None:
        return kind, None
    try:
        return kind, decode_mask(told, sample.width, sample.height)
    except DataError as error:
        counts[error.reason] += 1
        return ("box" if kind == "mask" else kind), None


def point_on(region: Region, mask: np.ndarray | None, random: np.random.Generator) -> tuple[float, float]:
    """A point of a region, x and y in pixels of the original image.

    A pixel of its mask, all equally likely. Without a mask a place in the middle half of the box in each direction:
    the corners of a box mostly show something else.
    """
    if mask is not None:
        rows, columns = np.nonzero(mask)
        pixel = int(random.integers(len(rows)))
        return float(columns[pixel] + 0.5), float(rows[pixel] + 0.5)
    x0, y0, x1, y1 = region.box
    across, down = random.uniform(0.25, 0.75, size=2)
    return x0 + across * (x1 - x0), y0 + down * (y1 - y0)


def decode_mask(told: Any, width: int, height: int) -> np.ndarray:
    """A mask from the shard format's COCO RLE: `{"size": [H, W], "counts": compressed text or list of run lengths}`.

    Args:
        told: what KEY.json holds.
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        (H, W) bool with at least one pixel inside.

    Raises:
        DataError: it is no RLE, of another size than its image, or empty.
    """
    if not isinstance(told, Mapping) or told.get("size") not in ([height, width], (height, width)):
        raise DataError("bad_mask", f"mask: expected COCO RLE with size [{height}, {width}], got {str(told)[:80]}")
    counts = told.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and run >= 0 for run in counts):
        raise DataError("bad_mask", f"mask: expected counts as COCO's text or a list, got {str(told)[:80]}")
    if sum(counts) != height * width:
        raise DataError("bad_mask", f"mask: expected runs of {height * width} pixels together, got {sum(counts)}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    if not flat.any():
        raise DataError("bad_mask", "mask: not one pixel is inside")
    return flat.reshape(width, height).T  # COCO's runs go down the columns


def _unpacked(text: str) -> list[int] | None:
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
