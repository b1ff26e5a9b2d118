"""In which frame the boxes of a file are: told by what most of them violate, not by a single one.

A file promises one frame (COCO: x, y, width, height in pixels). Read in another one, most of its boxes end outside
their image or have no area: as x, y, width, height a corner box does as soon as its centre lies right of or below that
of the image, three in four. In the right frame hardly any box does. `judge_frame` is the one judge: converters ask it
while they read (`FrameWatch`), benchmarks and scoring with whole arrays.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

Form = Literal["xywh", "xyxy", "centre"]
Scale = Literal["pixels", "unit", "thousand"]

FEWEST, ENOUGH = 8, 1000
"""Boxes before a frame is judged by its violations, and boxes of a stream that are kept for the judge."""
ROUNDING, SLACK = 1.0, 0.02
"""How far a box may reach beyond its image: pixels, or a share of the side where that is more."""
SOUND, FITTING, AMISS = 0.8, 0.9, 0.5
"""Share of sound boxes from which on nothing is said; that another frame needs to be named; and below which the file
is refused though no other frame fits."""

BEYOND, TOLD_FROM = 0.1, 20
"""Share of boxes amiss in a file that is not refused, from which on it is said; and of how many at least."""

SPREAD_FROM, NEAR, FAR = 50, 0.05, 0.75
"""Boxes from which on it is asked where they lie, and shares of the image that are near its beginning, far from its
end."""

_FORMS = {
    "xywh": "x, y, width, height",
    "xyxy": "corners (xyxy: x0, y0, x1, y1)",
    "centre": "the centre, width and height",
}
_SCALES = {"pixels": "pixels", "unit": "shares of the image (0 to 1)", "thousand": "thousandths of the image"}
_MEND = {
    ("xywh", "xyxy"): "; write them as x0, y0, x1 - x0, y1 - y0",
    ("xyxy", "xywh"): "; write them as x, y, x + width, y + height",
    ("xywh", "centre"): "; write them as x - width / 2, y - height / 2, width, height",
    ("xyxy", "centre"): "; write them as x - width / 2, y - height / 2, x + width / 2, y + height / 2",
}


@dataclass(frozen=True)
class Frame:
    """What four numbers mean.

    Attributes:
        form: x, y, width, height; corners; or centre, width, height.
        scale: pixels, or 0 to 1 or 0 to 1000 of the image.
    """

    form: Form = "xywh"
    scale: Scale = "pixels"

    def __str__(self) -> str:
        return f"{_FORMS[self.form]} in {_SCALES[self.scale]}"


XYWH, XYXY = Frame("xywh"), Frame("xyxy")
"""Pixels of the original image."""
UNIT = Frame("xyxy", "unit")
"""Corners in [0, 1] of the image."""


@dataclass(frozen=True)
class Misfit:
    """Why boxes are not in the frame that was promised.

    Attributes:
        promised: frame.
        seen: boxes that were looked at.
        amiss: of these, how many end outside their image or have no area in the promised frame.
        better: the frame in which they fit, None where there is none.
        fitting: how many fit there.
    """

    promised: Frame
    seen: int
    amiss: int
    better: Frame | None
    fitting: int

    def __str__(self) -> str:
        if self.better is not None and self.better.scale != self.promised.scale:
            return (
                f"expected bbox as {self.promised}, but {self.fitting:,} of {self.seen:,} boxes fit as "
                f"{_SCALES[self.better.scale]}; multiply x by the width of the image and y by its height"
                f"{' (over 1000)' * (self.better.scale == 'thousand')}"
                if self.promised.scale == "pixels"
                else f"expected bbox as {self.promised}, but {self.amiss:,} of {self.seen:,} boxes do not fit, and "
                f"{self.fitting:,} do as {_SCALES[self.better.scale]}; divide x and y by the sides of the image"
            )
        problem = (
            f"expected bbox as {self.promised}, but {self.amiss:,} of {self.seen:,} boxes end outside their image or "
            "have no area"
        )
        if self.better is None:
            return f"{problem}; are they of images of another size, or in another unit?"
        mend = _MEND.get((self.promised.form, self.better.form), "")
        return f"{problem} and {self.fitting:,} fit as {_FORMS[self.better.form]}{mend}"


def judge_frame(boxes: FloatArray, sizes: NDArray[np.number] | None, promised: Frame = XYWH) -> Misfit | None:
    """Whether boxes are in the frame that a file promises.

    Args:
        boxes: (K, 4) as they stand in the file, truth or answers.
        sizes: (K, 2) width and height of the image of each in pixels; None where they are not known and `promised` is
            no frame of pixels.
        promised: the frame.

    Returns:
        None where they are, or where nothing can be said of so few.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    count = len(boxes)
    if not count:
        return None
    sides = None if sizes is None else np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    sound = _are_sound(boxes, sides, promised)
    if promised.scale == "pixels":
        small = _are_within_one(boxes, sides)
        fractional = small & ((boxes % 1 != 0).any(axis=1) if count < FEWEST else True)
        if fractional.mean() > AMISS:
            better = Frame(_find_form_within_one(boxes), "unit")
            return Misfit(promised, count, int((~sound).sum()), better, int(fractional.sum()))
    if count < FEWEST or sound.mean() >= SOUND:
        return None
    best, fitting = None, sound
    for other in _list_others(promised, sides is not None, float(sound.mean())):
        fits = _are_sound(boxes, sides, other)
        if fits.mean() >= FITTING and fits.sum() > fitting.sum() + 0.1 * count:
            best, fitting = other, fits
    outside = int((~sound & _has_area(boxes, promised)).sum())
    if best is None and outside <= AMISS * count:
        return None
    return Misfit(promised, count, int((~sound).sum()), best, 0 if best is None else int(fitting.sum()))


def measure_misfit(boxes: FloatArray, sizes: NDArray[np.number] | None, promised: Frame = XYWH) -> float:
    """Share of boxes that end outside their image or have no area; 0 of none. See `judge_frame` for the arguments."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = None if sizes is None else np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    return 1 - float(_are_sound(boxes, sides, promised).mean()) if len(boxes) else 0.0


def fill_upper_left(boxes: FloatArray, sizes: NDArray[np.number], promised: Frame = XYWH) -> bool:
    """Whether boxes in pixels begin at the upper left of their images and never come near the right or lower side: so
    lie those of a smaller copy of the photos. False of few. See `judge_frame` for the arguments.
    """
    if promised.scale != "pixels" or len(boxes) < SPREAD_FROM:
        return False
    low, high = (corner / np.asarray(sizes, dtype=np.float64) for corner in _to_corners(boxes, promised.form))
    return bool((np.percentile(low, 2, axis=0) < NEAR).all() and (np.percentile(high, 99, axis=0) < FAR).all())


def _list_others(promised: Frame, sized: bool, share: float) -> list[Frame]:
    """The frames that are tried, the likeliest first."""
    forms: tuple[Form, ...] = ("xyxy", "xywh", "centre")
    found = [Frame(form, promised.scale) for form in forms if form != promised.form]
    if share < AMISS:  # of a few odd boxes a larger scale would always make sound ones
        scales = (("pixels",) if sized else ()) if promised.scale == "unit" else ()
        found += [Frame(form, scale) for scale in (*scales, "thousand") for form in (promised.form, *forms)]
    return [frame for frame in found if frame != promised]


def _to_corners(boxes: FloatArray, form: Form) -> tuple[FloatArray, FloatArray]:
    first, second = boxes[:, :2], boxes[:, 2:]
    with np.errstate(over="ignore", invalid="ignore"):
        if form == "xyxy":
            return first, second
        if form == "xywh":
            return first, first + second
        return first - second / 2, first + second / 2


def _has_area(boxes: FloatArray, frame: Frame) -> NDArray[np.bool_]:
    low, high = _to_corners(boxes, frame.form)
    return (high > low).all(axis=1)


def _are_sound(boxes: FloatArray, sides: FloatArray | None, frame: Frame) -> NDArray[np.bool_]:
    """(K,) whether a box has an area and lies inside its image."""
    if frame.scale == "pixels":
        if sides is None:
            raise ValueError("judge_frame: expected the sizes of the images for a frame of pixels, got none")
        limit, slack = sides, np.maximum(ROUNDING, SLACK * sides)
    else:
        limit = np.array([1.0 if frame.scale == "unit" else 1000.0] * 2)
        slack = SLACK * limit
    low, high = _to_corners(boxes, frame.form)
    return ((high > low) & (low >= -slack) & (high <= limit + slack)).all(axis=1)


def _are_within_one(boxes: FloatArray, sides: FloatArray | None) -> NDArray[np.bool_]:
    """(K,) whether all four numbers lie in [0, 1] though the image is larger: a box of a pixel at its corner."""
    large = np.ones(len(boxes), dtype=bool) if sides is None else (sides >= 8).all(axis=1)
    return large & (boxes >= -SLACK).all(axis=1) & (boxes <= 1 + SLACK).all(axis=1)


def _find_form_within_one(boxes: FloatArray) -> Form:
    forms: tuple[Form, ...] = ("xywh", "xyxy")
    return max(forms, key=lambda form: int(_are_sound(boxes, None, Frame(form, "unit")).sum()))


class FrameWatch:
    """Shows the judge boxes of a file while it is read: the first, and of the rest an even sample.

    Args:
        file: for the message.
        promised: the frame that the file promises.
    """

    def __init__(self, file: object, promised: Frame = XYWH) -> None:
        self.file, self.promised = file, promised
        self._boxes: list[tuple[float, ...]] = []
        self._sizes: list[tuple[float, float]] = []
        self._count, self._step = 0, 1

    def see(self, box: tuple[float, ...], width: float = math.nan, height: float = math.nan) -> None:
        """Look at one box as it stands in the file.

        Args:
            box: four numbers.
            width: of its image in pixels, where that is known.
            height: the same.

        Raises:
            ValueError: enough was seen to `refuse`.
        """
        self._count += 1
        if self._count % self._step:
            return
        self._boxes.append(box)
        self._sizes.append((width, height))
        if len(self._boxes) == ENOUGH:
            self.refuse()
            self._boxes, self._sizes, self._step = self._boxes[::2], self._sizes[::2], self._step * 2

    def refuse(self, dropped: Counter[str] | None = None) -> None:
        """Say so where the boxes are not in the promised frame.

        Args:
            dropped: gets box_beyond_its_image where more than a tenth of the boxes, and yet too few to refuse the
                file, end outside their image or have no area: how many, estimated from those that were kept. They are
                cut or left out all the same, and counted again as that. And box_of_smaller_picture, for all boxes of a
                file where they fill the upper left of their images alone.

        Raises:
            ValueError: that is how it is.
        """
        if not self._boxes:
            return
        sizes = np.array(self._sizes)
        known = not np.isnan(sizes).any()
        misfit = judge_frame(np.array(self._boxes), sizes if known else None, self.promised)
        if misfit is not None:
            raise ValueError(f"{self.file}: {misfit}")
        if dropped is not None and len(sizes) >= TOLD_FROM and (known or self.promised.scale != "pixels"):
            amiss = measure_misfit(np.array(self._boxes), sizes if known else None, self.promised)
            if amiss > BEYOND:
                dropped["box_beyond_its_image"] += round(amiss * self._count)
        if dropped is not None and known and fill_upper_left(np.array(self._boxes), sizes, self.promised):
            dropped["box_of_smaller_picture"] += self._count


class PaddingWatch:
    """Whether boxes of 0 to 1 are of a photo, or of the photo padded to a square at its centre.

    On a photo that is not square the two differ along its shorter side: of the padded one no box reaches into the
    padding; of the photo many do, since things touch its borders.

    Args:
        file: for the message.
        padded: what is promised.
    """

    def __init__(self, file: object, padded: bool) -> None:
        self.file, self.padded = file, padded
        self.seen = self.reaching = 0

    def see(self, box: tuple[float, ...], width: int, height: int) -> None:
        """Look at one box (x0, y0, x1, y1) of a photo of this size in pixels."""
        short, long = sorted((width, height))
        if long < _OBLONG * short:
            return
        padding, axis = (1 - short / long) / 2, int(width > height)
        self.seen += 1
        self.reaching += box[axis] < padding - SLACK or box[axis + 2] > 1 - padding + SLACK

    def refuse(self, dropped: Counter[str]) -> None:
        """Say so where the boxes are of the other one.

        Args:
            dropped: gets box_of_padded_square, all that were seen, where boxes that are promised to be of the photo
                look like such of the padded one.

        Raises:
            ValueError: they are promised to be of the padded one, and more than a fifth reach into the padding.
        """
        if self.padded and self.seen >= TOLD_FROM and self.reaching > (1 - SOUND) * self.seen:
            raise ValueError(
                f"{self.file}: expected boxes of the photos padded to a square, but {self.reaching:,} of {self.seen:,} "
                "reach into the padding, where no photo is; are they of the photos themselves? then --coordinates unit"
            )
        if not self.padded and self.seen >= SPREAD_FROM and self.reaching <= 0.01 * self.seen:
            dropped["box_of_padded_square"] += self.seen


_OBLONG = 1.2
"""Ratio of the sides from which on padding is wide enough to tell."""
