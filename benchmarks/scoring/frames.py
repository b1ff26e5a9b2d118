"""Refuses, or says of, boxes that are in another frame than promised: corners for widths, shares or thousandths for
pixels, another picture's size.

Truth and answers are judged alone, by the rule of the converters (`cloc.formats.frames`). What that cannot see (a
smaller picture's pixels fit into a larger one) shows beside the truth: in the right frame the answers overlap it, in
the promised one they do not. Letters: K boxes.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.grounding import answer_iou
from cloc.formats import frames

XYWH, XYXY = frames.XYWH, frames.XYXY
ENOUGH, FEWEST = 2000, 20
"""Answers that are held beside the truth, and fewest of which anything is said."""
SIZES = (224, 256, 336, 384, 448, 512, 640, 768, 800, 896, 1024, 1280, 1333)
"""Sides to which pictures are usually resized."""
SAID, REFUSED = (0.3, 2.0), (0.5, 3.0)
"""Mean IoU in another frame, and how many times that in the promised one, from which it is said and refused."""


def check_frame(boxes: NDArray[np.float64], sizes: NDArray[np.number], frame: frames.Frame, what: str) -> None:
    """Judge boxes alone.

    Args:
        boxes: (K, 4) as they stand in the file.
        sizes: (K, 2) width and height of their images, infinite where they are not known.
        frame: `XYWH` or `XYXY`.
        what: the file, for the message.

    Raises:
        ValueError: they are in another frame.
    """
    misfit = frames.judge_frame(boxes, sizes, frame)
    if misfit is not None:
        raise ValueError(f"{what}: {misfit}")


def note_beyond(boxes: NDArray[np.float64], sizes: NDArray[np.number], frame: frames.Frame, what: str) -> Counter[str]:
    """A note where more than a tenth of some boxes, and yet too few to refuse the file, do not fit their images.

    Args:
        boxes: (K, 4) as they stand in the file.
        sizes: (K, 2) width and height of their images, infinite where they are not known.
        frame: `XYWH` or `XYXY`.
        what: `annotations` or `predictions`.
    """
    share = frames.measure_misfit(boxes, sizes, frame) if len(boxes) >= frames.TOLD_FROM else 0.0
    if share <= frames.BEYOND:
        return Counter()
    said = f"boxes of the {what} ({share:.0%}) end outside their image or have no area: are some in another frame?"
    return Counter({said: round(share * len(boxes))})


def choose_evenly(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """`ENOUGH` of some rows at most, evenly spaced."""
    return rows if len(rows) <= ENOUGH else rows[np.linspace(0, len(rows) - 1, ENOUGH).astype(np.int64)]


def check_beside_truth(
    answers: NDArray[np.float64],
    references_xyxy: NDArray[np.float64],
    groups: NDArray[np.int64],
    sizes: NDArray[np.float64],
    form: str,
) -> Counter[str]:
    """Hold answers beside the truth, as they are and as if they were in other frames.

    Args:
        answers: (K, 4) as they stand in the file.
        references_xyxy: (K, 4) pixels; an answer stands beside each box that it may mean.
        groups: (K,) ascending number of the answer of each row.
        sizes: (K, 2) width and height of the image of each row, infinite where they are not known.
        form: `xywh` or `xyxy`, the one promised.

    Returns:
        A note where another frame fits far better; nothing else.

    Raises:
        ValueError: it fits so much better that the promised one cannot be meant.
    """
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    if len(starts) < FEWEST:
        return Counter()

    def reached(corners: NDArray[np.float64]) -> float:
        return float(np.maximum.reduceat(answer_iou(corners, references_xyxy), starts).mean())

    given, best, name = reached(_corners(answers, form)), 0.0, ""
    for label, corners in _others(answers, references_xyxy, sizes, form):
        value = reached(corners)
        if value > best:
            best, name = value, label
    found = f"read as {name} the answers overlap the truth far better (mean IoU {best:.2f} instead of {given:.2f})"
    if best >= REFUSED[0] and best >= REFUSED[1] * given:
        raise ValueError(f"predictions: {found}; turn them into pixels of the image")
    if best >= SAID[0] and best >= SAID[1] * given:
        return Counter({f"{found}: are they in another frame? answers": len(starts)})
    return Counter()


def _others(answers, references_xyxy, sizes, form):
    """(name, (K, 4) corners) of each frame that is tried."""
    forms = {"xywh": "x, y, width, height", "xyxy": "corners", "centre": "centre, width, height"}
    forms |= {"yxyx": "corners with y first", "yxhw": "y, x, height, width"}
    longer, shorter = sizes.max(axis=1, keepdims=True), sizes.min(axis=1, keepdims=True)
    known = np.isfinite(sizes).all()
    for kind, label in forms.items():
        corners = _corners(answers, kind)
        if kind != form:
            yield label, corners
        largest = float(np.percentile(corners[:, 2:], 99.5))
        for side in (1.0, 100.0, 1000.0, *SIZES, *([largest] if largest > 0 else [])) if known else ():
            named = f"{label} in {'0 to ' if side in (1, 100, 1000) else 'a picture of '}{side:,.4g}"
            yield named, corners * np.tile(sizes, 2) / side
            yield f"{named} on the longer side", corners * longer / side
            yield f"{named} on the shorter side", corners * shorter / side
            yield f"{named} on a padded square", corners * longer / side - np.tile((longer - sizes) / 2, 2)
        centres, wanted = (box[:, :2] + box[:, 2:] for box in (corners, references_xyxy))
        there = np.isfinite(centres).all(axis=1)
        if (np.abs(centres[there]).sum(axis=0) > 0).all():
            scale = wanted[there].sum(axis=0) / centres[there].sum(axis=0)
            if (np.abs(scale - 1) > 0.1).any():
                yield f"{label} times {scale[0]:.3g} across and {scale[1]:.3g} down", corners * np.tile(scale, 2)


def _corners(boxes: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    if form in ("yxyx", "yxhw"):
        boxes, form = boxes[:, [1, 0, 3, 2]], {"yxyx": "xyxy", "yxhw": "xywh"}[form]
    first, second = boxes[:, :2], boxes[:, 2:]
    if form == "xyxy":
        return boxes
    return np.concatenate(
        [first, first + second] if form == "xywh" else [first - second / 2, first + second / 2], axis=1
    )
