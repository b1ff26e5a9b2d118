"""An image with boxes and an optional heat map on it, as a data address that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.examples import Box

SIDE = 320
"""Longest side in pixels; smaller images are enlarged to it without smoothing, so that their pixels stay visible."""
TRUTH, ANSWER, ASKED = (38, 166, 91), (214, 69, 65), (240, 180, 40)
_WIDTH = 3


def drawn(
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
    size = tuple(max(1, round(side * scale)) for side in image.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    canvas = image.convert("RGB").resize(size, how)
    if heat is not None:
        canvas = _heated(canvas, heat)
    pen = ImageDraw.Draw(canvas)
    for boxes, colour, inset in ((asked, ASKED, 0), (truth, TRUTH, 0), (answer, ANSWER, _WIDTH)):
        for box in boxes:
            x0, y0, x1, y1 = (value * scale for value in box)
            if x1 - x0 > 2 * inset and y1 - y0 > 2 * inset:  # inside the other frame where both agree
                x0, y0, x1, y1 = x0 + inset, y0 + inset, x1 - inset, y1 - inset
            pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=_WIDTH)
    raw = io.BytesIO()
    canvas.save(raw, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(raw.getvalue()).decode("ascii")


def _heated(canvas: Image.Image, heat: NDArray[np.float64]) -> Image.Image:
    """Grey where the heat is 0, the image's own colours under a warm film where it is 1."""
    grid = Image.fromarray((np.clip(heat, 0.0, 1.0) * 255).astype(np.uint8))
    share = np.asarray(grid.resize(canvas.size, Image.Resampling.BICUBIC), dtype=np.float64)[..., None] / 255
    pixels = np.asarray(canvas, dtype=np.float64)
    grey = pixels.mean(axis=2, keepdims=True) * 0.4 + 15
    warm = pixels * 0.5 + np.array([255.0, 120.0, 0.0]) * 0.5
    share = share**2  # means over windows are smooth: only the peak shall glow
    return Image.fromarray((grey * (1 - share) + warm * share).round().astype(np.uint8))
