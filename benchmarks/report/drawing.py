"""An image with boxes and an optional heat map on it, as a data address that a page can hold; and the heat maps.

A similarity map says how near each place of an image is to a phrase, for any predictor that can embed boxes: windows of
two sizes slide over the image; each is embedded as a region, and a place gets the mean cosine of the windows over it.
What is drawn is the rank between the lowest (0) and the highest (1) place of this image, no probability.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes

from benchmarks.examples import Box
from benchmarks.predictors.contract import Predictor

SIDE = 320
"""Longest side in pixels; smaller images are enlarged to it without smoothing, so that their pixels stay visible."""
TRUTH, ANSWER, ASKED = (38, 166, 91), (214, 69, 65), (240, 180, 40)
_WIDTH = 3
GRID = 24
SHARES = (0.25, 0.5)
"""Side of the windows as a share of the image's side."""


def draw_example(
    image: Image.Image,
    asked: Sequence[Box] = (),
    truth: Sequence[Box] = (),
    answer: Sequence[Box] = (),
    heat: NDArray[np.float64] | None = None,
) -> str:
    """A `data:` address of a JPEG.

    Args:
        image: RGB.
        asked: boxes of the question, xyxy pixels of the image.
        truth: boxes of the right answer.
        answer: boxes of the model's answer, drawn last.
        heat: (H, W) in [0, 1] on any grid, laid over the image.
    """
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    canvas = image.convert("RGB").resize(size, how)
    if heat is not None:
        canvas = _heated(canvas, heat)
    for boxes, colour, inset in ((asked, ASKED, 0), (truth, TRUTH, 0), (answer, ANSWER, _WIDTH)):
        canvas = draw_boxes(canvas, np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale, colour, inset)
    raw = io.BytesIO()
    canvas.save(raw, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(raw.getvalue()).decode("ascii")


def draw_boxes(
    canvas: Image.Image, boxes_xyxy: NDArray[np.float64], colour: tuple[int, int, int], inset: int = 0
) -> Image.Image:
    """A copy with frames of `_WIDTH` pixels around (K, 4) boxes in its pixels.

    Args:
        canvas: RGB.
        boxes_xyxy: a box whose end lies before its start becomes a line.
        colour: of all of them.
        inset: pixels by which frames shrink where there is room: inside another frame where two boxes agree.
    """
    if not len(boxes_xyxy):
        return canvas
    roomy = ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) > 2 * inset).all(axis=1, keepdims=True)
    corners = boxes_xyxy + np.where(roomy, inset, 0) * np.array([1, 1, -1, -1])
    corners[:, 2:] = np.maximum(corners[:, :2], corners[:, 2:])
    framed = draw_bounding_boxes(pil_to_tensor(canvas), torch.from_numpy(corners), colors=colour, width=_WIDTH)
    return to_pil_image(framed)


def _heated(canvas: Image.Image, heat: NDArray[np.float64]) -> Image.Image:
    """Grey where the heat is 0, the image's own colours under a warm film where it is 1."""
    grid = Image.fromarray((np.clip(heat, 0.0, 1.0) * 255).astype(np.uint8))
    share = np.asarray(grid.resize(canvas.size, Image.Resampling.BICUBIC), dtype=np.float64)[..., None] / 255
    pixels = np.asarray(canvas, dtype=np.float64)
    grey = pixels.mean(axis=2, keepdims=True) * 0.4 + 15
    warm = pixels * 0.5 + np.array([255.0, 120.0, 0.0]) * 0.5
    share = share**2  # means over windows are smooth: only the peak shall glow
    return Image.fromarray((grey * (1 - share) + warm * share).round().astype(np.uint8))


def make_similarity_map(predictor: Predictor, image: Image.Image, phrase: str) -> NDArray[np.float64]:
    """(GRID, GRID) in [0, 1]: rows are the image's rows."""
    cells = np.concatenate([make_windows(share) for share in SHARES])
    boxes_xyxy = cells / GRID * np.tile([image.width, image.height], 2)
    regions = predictor.encode_regions([image], [boxes_xyxy])[0]
    cosine = regions @ predictor.encode_texts([phrase])[0]
    return average_windows(cells, cosine)


def make_windows(share: float) -> NDArray[np.int64]:
    """(N, 4) xyxy windows in whole cells of the grid, one third of their side apart, the last ones at the border."""
    side = max(1, round(GRID * share))
    starts = np.unique(np.append(np.arange(0, GRID - side, max(1, side // 3)), GRID - side))
    y, x = (axis.ravel() for axis in np.meshgrid(starts, starts, indexing="ij"))
    return np.stack([x, y, x + side, y + side], axis=1)


def average_windows(cells_xyxy: NDArray[np.int64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of the windows over each cell, stretched to [0, 1]; zeros where all are equal."""
    total, count = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    for (x0, y0, x1, y1), value in zip(cells_xyxy, values, strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    mean = total / np.maximum(count, 1)
    span = mean.max() - mean.min()
    return (mean - mean.min()) / span if span > 0 else np.zeros_like(mean)
