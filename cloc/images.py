"""Ground floor: where an image lies on the model's canvas.

The canvas is a square: the image is padded to a square at its centre, then resized. `LlavaImageProcessor` with
`do_pad=True` does the same from an export, so the training transform and the exported one agree.
Boxes on disk are xyxy pixels of the original image; inside they are xyxy in [0, 1] of the canvas. `Placement` is the
only class that converts.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cloc.boxes import FloatArray, as_boxes

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_PIXELS = 100_000_000
"""An image that claims more pixels than this is refused before it is decoded."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a width x height image (pixels) lies on its padded square canvas."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"placement: expected an image of at least 1 x 1 pixels, got {self.width} x {self.height}")

    @property
    def side(self) -> int:
        """Side of the padded square in pixels of the original image."""
        return max(self.width, self.height)

    @property
    def offset(self) -> tuple[int, int]:
        """Columns padded on the left and rows padded on top, in pixels of the original image."""
        return (self.side - self.width) // 2, (self.side - self.height) // 2

    def to_canvas(self, boxes_xyxy: object) -> FloatArray:
        """(K, 4) pixels of the original image to (K, 4) in [0, 1] of the canvas."""
        x, y = self.offset
        return (as_boxes(boxes_xyxy) + np.array([x, y, x, y])) / self.side

    def to_pixels(self, boxes_xyxy: object) -> FloatArray:
        """(K, 4) in [0, 1] of the canvas to (K, 4) pixels of the original image, cut at its border."""
        x, y = self.offset
        pixels = as_boxes(boxes_xyxy) * self.side - np.array([x, y, x, y])
        return np.clip(pixels, 0.0, np.array([self.width, self.height, self.width, self.height], dtype=np.float64))


def pad_colour(mean: tuple[float, ...] = CLIP_MEAN) -> tuple[int, ...]:
    """The colour of the padding, 0 to 255: the mean colour, rounded down as `LlavaImageProcessor` does."""
    return tuple(int(value * 255) for value in mean)


def decode(data: bytes) -> Image.Image:
    """Decode an encoded image (JPEG, PNG, WebP) to RGB.

    Raises:
        ValueError: the bytes are no image, are cut short, or claim more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"image claims {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"image cannot be decoded: {error}") from error


def place(image: Image.Image, size: int, mean: tuple[float, ...] = CLIP_MEAN) -> Image.Image:
    """Pad an RGB image to a square with the mean colour and resize it (bicubic) to size x size pixels."""
    placement = Placement(image.width, image.height)
    if image.width != image.height:
        canvas = Image.new("RGB", (placement.side, placement.side), pad_colour(mean))
        canvas.paste(image, placement.offset)
        image = canvas
    return image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC)


def to_pixel_values(
    image: Image.Image, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> np.ndarray:
    """RGB image to a normalised (3, H, W) float32 array."""
    scaled = np.asarray(image, dtype=np.float32) / np.float32(255.0)
    normalised = (scaled - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
