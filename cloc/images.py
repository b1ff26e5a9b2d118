"""An encoded image to RGB pixels, and where these lie on the model's canvas. Every reader of images goes through here.

**Formats.** In data: JPEG (of an MPO the first picture), PNG and WebP. A user's own photo may also be BMP, GIF or TIFF.
No other format is tried, so none that starts another program. Of an animation the first frame is taken.

**Modes.** RGB as it is; grey of 1 and 8 bits, CMYK and YCbCr as Pillow converts them. Grey of 16 bits: the upper 8 of
them. Grey of 32 bits, and of floats: the upper 8 bits of the smallest of 8, 16 and 32 bits that holds the image's
largest value, floats of at most 1 times 255; below 0 is 0. Transparency (an alpha channel, a palette with it, one
transparent colour) lies over `BACKGROUND`, white.

**Frame.** A photo may say in its EXIF that it is shown turned; then it has a stored frame and a displayed one.

- Boxes with a size (a sample's, an annotation's): the size decides. Equal to the stored size: the stored frame, also
  where the displayed one has the same size (a square, a photo upside down or mirrored), since that is what the bytes
  say to every reader; equal to the displayed size alone: the displayed frame; equal to neither: refused.
- A user's own photo without a size (detect, embed, conversations): the displayed frame, as viewers, browsers and the
  pipelines of transformers show it. TIFF is always in the displayed frame, as Pillow opens it.
- Photos of data that tell no size (pairs, classes): the stored frame, as open_clip and torchvision read them.

**Canvas.** The square canvas: the image is padded to a square at its centre, then resized. `LlavaImageProcessor` with
`do_pad=True` does the same from an export, so the training transform and the exported one agree. An image whose padded
square would be far larger than itself (see `Placement.pads_first`) is resized, then padded: the same place, in memory
of the canvas' size. The detection canvas: the image is resized with its aspect kept and lies at the top left, padded
right and below. Boxes on disk are xyxy pixels of the image in its frame; inside they are xyxy in [0, 1] of the canvas.
`Placement` and `DetectionPlacement` are the only classes that convert.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cloc.boxes import FloatArray, as_boxes, clip_to_image

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Of the files that are taken from a user's folder, in any case."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_PIXELS = 100_000_000
"""An image that claims more pixels than this is refused before it is decoded."""
BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""
DATA_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
"""Formats of images in data, by Pillow's names."""
PHOTO_FORMATS = (*DATA_FORMATS, "BMP", "GIF", "TIFF")
"""Formats of a user's own photo."""

Size = tuple[int, int]
"""(width, height) in pixels."""

_OPENED = tuple(name for name in PHOTO_FORMATS if name != "MPO")  # which Pillow opens as JPEG

_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}
_LONG_SIDE = 4096
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation, and what makes the displayed frame of the stored one (EXIF 2.32, 4.6.4 A)."""
_FAULTS = (
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError, zlib.error, struct.error, EOFError, MemoryError),
    *(LookupError, TypeError, ArithmeticError, AttributeError, AssertionError, RuntimeError),
)
"""What Pillow raises over bytes that are no whole image; running out of memory is one more way of being too large."""


class ImageError(ValueError):
    """An image that cannot be used.

    Attributes:
        reason: `unreadable`, `other_format`, `too_large`, `other_size` or `swapped_sides` (another size, with width and
            height exchanged).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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

    @property
    def pads_first(self) -> bool:
        """Whether the padded square is made at full size: its side is at most 4096 pixels, or it has at most four times
        the image's own. So it is for all but long strips; these are resized before they are padded.
        """
        return self.side**2 <= max(_LONG_SIDE**2, 4 * self.width * self.height)

    def to_canvas(self, boxes_xyxy: object) -> FloatArray:
        """(K, 4) pixels of the original image to (K, 4) in [0, 1] of the canvas."""
        x, y = self.offset
        return (as_boxes(boxes_xyxy) + np.array([x, y, x, y])) / self.side

    def to_pixels(self, boxes_xyxy: object) -> FloatArray:
        """(K, 4) in [0, 1] of the canvas to (K, 4) pixels of the original image, cut at its border."""
        x, y = self.offset
        pixels = as_boxes(boxes_xyxy) * self.side - np.array([x, y, x, y])
        return clip_to_image(pixels, self.width, self.height)


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
        return clip_to_image(pixels, self.width, self.height)

    def _factors(self, canvas: tuple[int, int]) -> FloatArray:
        x = self.scaled[0] / self.width / canvas[0]
        y = self.scaled[1] / self.height / canvas[1]
        return np.array([x, y, x, y])


def pad_colour(mean: tuple[float, ...] = CLIP_MEAN) -> tuple[int, ...]:
    """The colour of the padding, 0 to 255: the mean colour, rounded down as `LlavaImageProcessor` does."""
    return tuple(int(value * 255) for value in mean)


def read_header(data: bytes, formats: Sequence[str] = DATA_FORMATS) -> tuple[str, Size]:
    """(file ending such as `jpg`, stored size) of an encoded image; it is not decoded.

    Raises:
        ImageError: the bytes begin no image, it is of another format, or it claims more than `MAX_PIXELS`.
    """
    try:
        with _opened(data, formats) as image:
            return _ENDINGS[str(image.format)], image.size
    except ImageError:
        raise
    except _FAULTS as error:
        raise _as_fault(error) from error


def displayed_size(data: bytes, formats: Sequence[str] = DATA_FORMATS) -> Size:
    """The size in the displayed frame, see above.

    Raises:
        ImageError: see `read_header`.
    """
    try:
        with _opened(data, formats) as image:
            return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size
    except ImageError:
        raise
    except _FAULTS as error:
        raise _as_fault(error) from error


def decode(data: bytes, size: Size | None = None) -> Image.Image:
    """Decode an image of data (JPEG, PNG, WebP) to RGB.

    Args:
        data: the encoded image.
        size: as its annotation tells, which decides the frame; None: the stored frame.

    Raises:
        ImageError: the bytes are no image, are cut short, claim more than `MAX_PIXELS`, or have another size.
    """
    return _decoded(data, DATA_FORMATS, size, displayed=False)


def decode_photo(data: bytes, size: Size | None = None) -> Image.Image:
    """Decode a user's own photo, which may also be BMP, GIF or TIFF, to RGB; without a size in the displayed frame.

    Raises:
        ImageError: as `decode`.
    """
    return _decoded(data, PHOTO_FORMATS, size, displayed=True)


def read_photo(path: Path, size: Size | None = None) -> Image.Image:
    """The same from a file.

    Raises:
        ImageError: as `decode`, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise ImageError("unreadable", f"is a folder; give the files in it, as {path}/*.jpg") from error
    except OSError as error:
        raise ImageError("unreadable", f"cannot be read ({error.strerror or error})") from error
    return decode_photo(data, size)


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image of any mode in RGB, by the rule above.

    Raises:
        ValueError: Pillow has no way from its mode to RGB.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, BACKGROUND)
    canvas.paste(layers, mask=layers.getchannel("A"))
    return canvas


def is_strip(size: Size) -> bool:
    """Whether an image is so long and thin that processors of other models, which pad it to a square or enlarge its
    short side, would need memory far beyond the image's own: a side over 100 times the other, or a padded square of
    more than `MAX_PIXELS` and more than twice the image's own pixels.
    """
    short, long = sorted(size)
    return long > 100 * short or long**2 > max(MAX_PIXELS, 2 * short * long)


def _opened(data: bytes, formats: Sequence[str]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its limit is below ours
        image = Image.open(io.BytesIO(data), formats=_OPENED)  # others of the list only to name them
    if image.format not in formats:
        told = "JPEG, PNG or WebP" + (", BMP, GIF or TIFF" if formats is PHOTO_FORMATS else "")
        raise ImageError("other_format", f"image cannot be decoded: expected {told}, got {image.format}")
    if image.width * image.height > MAX_PIXELS:
        message = f"image claims {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read"
        raise ImageError("too_large", message)
    return image


def _decoded(data: bytes, formats: Sequence[str], size: Size | None, displayed: bool) -> Image.Image:
    try:
        image = _opened(data, formats)
        stored = image.size
        if size is not None:
            if size not in (stored, stored[::-1]):
                raise ImageError("other_size", f"expected {size[0]} x {size[1]} pixels, got {stored[0]} x {stored[1]}")
            displayed = size != stored
        turn = _TURNS.get(_orientation(image)) if displayed else None
        image = to_rgb(image if turn is None else image.transpose(turn))
    except ImageError:
        raise
    except _FAULTS as error:
        raise _as_fault(error) from error
    if size is not None and image.size != size:
        raise ImageError(
            "swapped_sides",
            f"expected {size[0]} x {size[1]} pixels, got {stored[0]} x {stored[1]}: the sides are swapped, as if told "
            "in the frame that a viewer shows, but its EXIF names no quarter turn; was it removed?",
        )
    return image


def _as_fault(error: BaseException) -> ImageError:
    too_large = isinstance(error, (Image.DecompressionBombError, MemoryError))
    told = str(error) or type(error).__name__
    return ImageError("too_large" if too_large else "unreadable", f"image cannot be decoded: {told}")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or it cannot be read, and for TIFF, which Pillow turns."""
    if image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _FAULTS:
        return 1


def _eight_bits(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of an image of one channel with 16 or 32 bits, or floats; some rows at a time."""
    deep, flat = np.asarray(image), np.empty(image.size[::-1], dtype=np.uint8)
    if deep.dtype.kind == "f":
        finite = np.isfinite(deep)
        top = float(deep.max(where=finite, initial=0.0))
        divisor = 1 / 255 if top <= 1 else 1 if top < 1 << 8 else 1 << 8 if top < 1 << 16 else 1 << 24
    elif image.mode == "I":
        top = int(deep.max())
        divisor = 1 if top < 1 << 8 else 1 << 8 if top < 1 << 16 else 1 << 24
    else:
        divisor = 1 << 8
    rows = max(1, (1 << 20) // image.width)
    for first in range(0, image.height, rows):
        part = deep[first : first + rows]
        if deep.dtype.kind == "f":
            part = np.nan_to_num(part.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf) / divisor
            part = np.rint(part) if divisor < 1 else np.floor(part)
        else:
            part = part // divisor
        flat[first : first + rows] = np.clip(part, 0, 255)
    return flat


def place(image: Image.Image, size: int, mean: tuple[float, ...] = CLIP_MEAN) -> Image.Image:
    """Put an RGB image (bicubic) at the centre of a canvas of size x size pixels of the mean colour."""
    placement = Placement(image.width, image.height)
    if image.width == image.height:
        return image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC)
    if placement.pads_first:
        canvas = Image.new("RGB", (placement.side, placement.side), pad_colour(mean))
        canvas.paste(image, placement.offset)
        return canvas if placement.side == size else canvas.resize((size, size), Image.Resampling.BICUBIC)
    factor = size / placement.side
    across, down = (max(1, round(side * factor)) for side in image.size)
    left, top = (
        min(round(pad * factor), size - side) for pad, side in zip(placement.offset, (across, down), strict=True)
    )
    canvas = Image.new("RGB", (size, size), pad_colour(mean))
    canvas.paste(image.resize((across, down), Image.Resampling.BICUBIC), (left, top))
    return canvas


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
