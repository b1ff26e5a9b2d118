"""How near each place of an image is to a phrase, for any predictor that can embed boxes.

Windows of two sizes slide over the image; each is embedded as a region, and a place gets the mean cosine of the windows
over it. What is drawn is the rank between the lowest (0) and the highest (1) place of this image, no probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.predictors.contract import Predictor

GRID = 24
SHARES = (0.25, 0.5)
"""Side of the windows as a share of the image's side."""


def similarity_map(predictor: Predictor, image: Image.Image, phrase: str) -> NDArray[np.float64]:
    """(GRID, GRID) in [0, 1]: rows are the image's rows."""
    cells = np.concatenate([windows(share) for share in SHARES])
    boxes_xyxy = cells / GRID * np.tile([image.width, image.height], 2)
    regions = predictor.encode_regions([image], [boxes_xyxy])[0]
    cosine = regions @ predictor.encode_texts([phrase])[0]
    return spread(cells, cosine)


def windows(share: float) -> NDArray[np.int64]:
    """(N, 4) xyxy windows in whole cells of the grid, one third of their side apart, the last ones at the border."""
    side = max(1, round(GRID * share))
    starts = np.unique(np.append(np.arange(0, GRID - side, max(1, side // 3)), GRID - side))
    y, x = (axis.ravel() for axis in np.meshgrid(starts, starts, indexing="ij"))
    return np.stack([x, y, x + side, y + side], axis=1)


def spread(cells_xyxy: NDArray[np.int64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of the windows over each cell, stretched to [0, 1]; zeros where all are equal."""
    total, count = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    for (x0, y0, x1, y1), value in zip(cells_xyxy, values, strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    mean = total / np.maximum(count, 1)
    span = mean.max() - mean.min()
    return (mean - mean.min()) / span if span > 0 else np.zeros_like(mean)
