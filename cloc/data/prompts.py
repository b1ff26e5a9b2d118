"""Which kind of prompt a region is asked with in training: its box, a point on it, or its mask.

The draw is a function of (seed, epoch, sample key, region) alone, so that it depends neither on the ranks nor on which
other regions were drawn. A region without a mask is asked with one of the other kinds, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cloc.data.order import draw
from cloc.formats.segmentation import decode_rle
from cloc.images import Placement
from cloc.masks import mask_extents, place_mask
from cloc.structures import PROMPT_KINDS, DataError, Region, Sample


@dataclass(frozen=True, slots=True)
class PromptSampler:
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
        coords: (m, 4) float32.
        patch_coverage: (m, rows, columns) float32.
    """

    kinds: np.ndarray
    coords: np.ndarray
    patch_coverage: np.ndarray


def draw_prompts(
    sample: Sample, chosen: Sequence[int], settings: PromptSampler, image_size: int, seed: int, epoch: int
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
    coords = np.zeros((len(chosen), 4), dtype=np.float32)
    patch_coverage = np.zeros((len(chosen), *settings.grid), dtype=np.float32)
    counts, placement = Counter[str](), Placement(sample.width, sample.height)
    for row, index in enumerate(chosen):
        region = sample.regions[index]
        random = draw(seed, "prompt", epoch, sample.key, int(index))
        kind, mask = _draw_kind(region, sample, settings, random, counts)
        kinds[row] = PROMPT_KINDS.index(kind)
        if kind == "mask":
            raster = place_mask(mask, image_size)
            coords[row] = mask_extents(torch.from_numpy(raster)).numpy()
            rows, columns = settings.grid
            blocks = raster.reshape(rows, image_size // rows, columns, image_size // columns)
            patch_coverage[row] = blocks.mean(axis=(1, 3))
        elif kind == "point":
            x, y = draw_point(region, mask, random)
            coords[row] = placement.to_canvas([(x, y, x, y)])[0]
        else:
            coords[row] = placement.to_canvas([region.box])[0]
    return DrawnPrompts(kinds, coords, patch_coverage), counts


def _draw_kind(
    region: Region, sample: Sample, settings: PromptSampler, random: np.random.Generator, counts: Counter[str]
) -> tuple[str, np.ndarray | None]:
    """The kind of a region's prompt, and its mask where that kind reads it: points lie on masks as well."""
    rle = region.extras.get("mask")
    possible = [kind for kind in settings.kinds if kind != "mask" or rle is not None]
    counts["no_mask"] += len(settings.kinds) - len(possible)
    kind = possible[int(random.integers(len(possible)))]
    if kind == "box" or rle is None:
        return kind, None
    try:
        return kind, decode_rle(rle, sample.width, sample.height)
    except DataError as error:
        counts[error.reason] += 1
        return ("box" if kind == "mask" else kind), None


def draw_point(region: Region, mask: np.ndarray | None, random: np.random.Generator) -> tuple[float, float]:
    """A point of a region, x and y in pixels of the original image.

    A pixel of its mask, all equally likely. Without a mask one in the middle half of the box in each direction:
    the corners of a box mostly show something else.
    """
    if mask is not None:
        rows, columns = np.nonzero(mask)
        pixel = int(random.integers(len(rows)))
        return float(columns[pixel] + 0.5), float(rows[pixel] + 0.5)
    x0, y0, x1, y1 = region.box
    across, down = random.uniform(0.25, 0.75, size=2)
    return x0 + across * (x1 - x0), y0 + down * (y1 - y0)
