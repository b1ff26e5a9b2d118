"""Ground floor: where an image lies on the model's canvas.

The square canvas: the image is padded to a square at its centre, then resized. `LlavaImageProcessor` with
`do_pad=True` does the same from an export, so the training transform and the exported one agree.
The detection canvas: the image is resized with its aspect kept and lies at the top left, padded right and below.
Boxes on disk are xyxy pixels of the original image; inside they are xyxy in [0, 1] of the canvas. `Placement` and
`DetectionPlacement` are the only classes that convert.
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


@dataclass(frozen=True, slots=True)
class DetectionPlacement:
    """How a width x height image (pixels) lies on a detection canvas: resized with its aspect kept, at the top left.

    Attributes:
        width, height: the original image in pixels.
        short_side, long_side: the image is made as large as it can be with its shorter side at most `short_side` and
            its longer side at most `long_side` pixels.
    """

    width: int
    height: int
    short_side: int
    long_side: int

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.short_side) < 1 or self.long_side < self.short_side:
            raise ValueError(
                "detection placement: expected an image of at least 1 x 1 pixels and 1 <= short_side <= long_side, got "
                f"{self.width} x {self.height}, short_side {self.short_side}, long_side {self.long_side}"
            )

    @property
    def scaled(self) -> tuple[int, int]:
        """Width and height in pixels after the resize, each at least 1."""
        short, long = sorted((self.width, self.height))
        factor = min(self.short_side / short, self.long_side / long)
        return max(1, round(self.width * factor)), max(1, round(self.height * factor))

    def to_canvas(self, boxes_xyxy: object, canvas: tuple[int, int]) -> FloatArray:
        """(K, 4) pixels of the original image to (K, 4) in [0, 1] of a canvas of (width, height) pixels."""
        return as_boxes(boxes_xyxy) * self._factors(canvas)

    def to_pixels(self, boxes_xyxy: object, canvas: tuple[int, int]) -> FloatArray:
        """(K, 4) in [0, 1] of the canvas to (K, 4) pixels of the original image, cut at its border."""
        pixels = as_boxes(boxes_xyxy) / self._factors(canvas)
        return np.clip(pixels, 0.0, np.array([self.width, self.height, self.width, self.height], dtype=np.float64))

    def _factors(self, canvas: tuple[int, int]) -> FloatArray:
        x = self.scaled[0] / self.width / canvas[0]
        y = self.scaled[1] / self.height / canvas[1]
        return np.array([x, y, x, y])


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
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its limit is below ours
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"image claims {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image cannot be decoded: {error}") from error


def place(image: Image.Image, size: int, mean: tuple[float, ...] = CLIP_MEAN) -> Image.Image:
    """Pad an RGB image to a square with the mean colour and resize it (bicubic) to size x size pixels."""
    placement = Placement(image.width, image.height)
    if image.width != image.height:
        canvas = Image.new("RGB", (placement.side, placement.side), pad_colour(mean))
        canvas.paste(image, placement.offset)
        image = canvas
    return image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC)


def place_top_left(
    image: Image.Image, scaled: tuple[int, int], canvas: tuple[int, int], mean: tuple[float, ...] = CLIP_MEAN
) -> Image.Image:
    """Resize an RGB image (bicubic) to `scaled` and put it at the top left of a canvas of the mean colour.

    Args:
        image: any size.
        scaled: (width, height) in pixels after the resize, `DetectionPlacement.scaled`.
        canvas: (width, height) in pixels, at least `scaled`.
        mean: the colour of the padding in [0, 1].

    Raises:
        ValueError: the canvas is smaller than the image on it.
    """
    if canvas[0] < scaled[0] or canvas[1] < scaled[1]:
        raise ValueError(f"place_top_left: expected a canvas of at least {scaled} pixels, got {canvas}")
    image = image if image.size == scaled else image.resize(scaled, Image.Resampling.BICUBIC)
    if canvas == scaled:
        return image
    padded = Image.new("RGB", canvas, pad_colour(mean))
    padded.paste(image, (0, 0))
    return padded


def to_pixel_values(
    image: Image.Image, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> np.ndarray:
    """RGB image to a normalised (3, H, W) float32 array."""
    colours_first = np.asarray(image).transpose(2, 0, 1)
    values = np.empty(colours_first.shape, dtype=np.float32)  # filled in place: a twentieth of the time of whole arrays
    np.divide(colours_first, np.float32(255.0), out=values)
    values -= np.asarray(mean, dtype=np.float32)[:, None, None]
    values /= np.asarray(std, dtype=np.float32)[:, None, None]
    return values
