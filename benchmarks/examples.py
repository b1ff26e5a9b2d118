"""What a task lets a report look at: every example with its verdict, drawn only when it is asked for.

Letters: K examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    """One example, ready to be drawn.

    Attributes:
        image: file of the image.
        question: what was asked, in one line.
        truth: the right answer in words; empty where it is a box alone.
        answer: the model's answer in words; empty where it is a box alone.
        asked_xyxy: boxes that belong to the question, pixels of the image.
        truth_xyxy: boxes of the right answer.
        answer_xyxy: boxes of the model's answer.
        phrase: the text of which a similarity map makes sense; empty for none.
    """

    image: Path
    question: str
    truth: str = ""
    answer: str = ""
    asked_xyxy: tuple[Box, ...] = ()
    truth_xyxy: tuple[Box, ...] = ()
    answer_xyxy: tuple[Box, ...] = ()
    phrase: str = ""


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """The examples of one task on one split, as one reading of one model answered them.

    Attributes:
        keys: (K,) number of each example, different from each other and the same for every reading.
        right: (K,) bool.
        confidence: (K,) how sure the answer was, on any one scale; only the order counts.
        show: row to `Example`.
    """

    keys: NDArray[np.int64]
    right: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    show: Callable[[int], Example]


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: in the legend.
        x, y: its points.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Some lines in one frame.

    Attributes:
        title: above it.
        x_name, y_name: what the axes are.
        curves: its lines.
    """

    title: str
    x_name: str
    y_name: str
    curves: tuple[Curve, ...]


def list_boxes(boxes_xyxy: object) -> tuple[Box, ...]:
    """Rows of a (N, 4) array as plain numbers."""
    rows = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4).tolist()
    return tuple((left, top, right, bottom) for left, top, right, bottom in rows)
