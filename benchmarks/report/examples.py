"""Which examples teach most, and how they stand on the page: those on which two readouts differ, then sure mistakes
and unsure hits.

Letters: K examples of A, L of B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.examples import Example, ExampleSet
from benchmarks.predictors.contract import Predictor

A_ALONE, B_ALONE = "A right, B wrong", "A wrong, B right"
BOTH_WRONG, BOTH_RIGHT = "both wrong", "both right, A least sure"
WRONG, RIGHT = "wrong, and surest of it", "right, and least sure of it"
MAPS = 2
"""Similarity maps a section."""


@dataclass(frozen=True)
class Picture:
    """Attributes: `source` is a data address, `words` tell the picture to those who cannot see it."""

    source: str
    words: str
    caption: str


@dataclass(frozen=True)
class Figure:
    """One example: A's picture, and B's beside it."""

    kind: str
    question: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """The examples of one task on one split."""

    title: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, eq=False)
class Readout:
    """One predictor's examples.

    Attributes:
        name: model and readout, for captions.
        examples: its examples.
        predictor: for similarity maps; None draws none.
    """

    name: str
    examples: ExampleSet
    predictor: Predictor | None = None


def make_section(title: str, readouts: Sequence[Readout], each: int = 2) -> Section:
    """The chosen examples of one readout, or of A beside B; one whose image is gone by now is left out."""
    a, b = readouts[0], readouts[1] if len(readouts) > 1 else None
    figures, maps = list[Figure](), list[Figure]()
    for chosen in choose_examples(a.examples, b.examples if b else None, each):
        rows = [chosen.row_a] if chosen.row_b is None else [chosen.row_a, chosen.row_b]
        shown = [readout.examples.show(row) for readout, row in zip(readouts, rows, strict=True)]
        image = open_image(shown[0])
        if image is None:
            continue
        pictures = [
            _picture(image, one, readout.name, bool(readout.examples.right[row]))
            for one, readout, row in zip(shown, readouts, rows, strict=True)
        ]
        figures.append(Figure(chosen.kind, shown[0].question, tuple(pictures)))
        if shown[0].phrase and len(maps) < MAPS and all(readout.predictor for readout in readouts):
            maps.append(_maps(image, shown[0], readouts))
    return Section(title, (*figures, *maps))


def open_image(shown: Example) -> Image.Image | None:
    """The image in RGB, None where it is gone or broken."""
    from cloc.images import ImageError, decode  # loads torch, which the page of a scored file needs not

    try:
        return decode(shown.image.read_bytes())
    except (ImageError, OSError):
        return None


def _picture(image: Image.Image, shown: Example, name: str, right: bool) -> Picture:
    verdict = "right" if right else "wrong"
    said = f"{name}: {shown.answer}" if shown.answer else name
    correction = f" (it is {shown.truth})" if shown.truth and not right else ""
    from benchmarks.report.drawing import draw_example

    source = draw_example(image, shown.asked_xyxy, shown.truth_xyxy, shown.answer_xyxy)
    words = f"{shown.question}; {said}, {verdict}{correction}; boxes drawn on {shown.image.name}"
    return Picture(source, words, f"{said}, {verdict}{correction}")


def _maps(image: Image.Image, shown: Example, readouts: Sequence[Readout]) -> Figure:
    from benchmarks.report.drawing import draw_example, make_similarity_map

    pictures = []
    for readout in readouts:
        assert readout.predictor is not None  # asked by the caller
        heat = make_similarity_map(readout.predictor, image, shown.phrase)
        truth = shown.truth_xyxy or shown.asked_xyxy
        words = f"map of the similarity to '{shown.phrase}' over {shown.image.name}, as {readout.name} sees it"
        pictures.append(Picture(draw_example(image, truth=truth, heat=heat), words, readout.name))
    return Figure("similarity map", f"'{shown.phrase}'", tuple(pictures))


@dataclass(frozen=True)
class Chosen:
    """One example to show.

    Attributes:
        kind: why it was chosen.
        row_a: its row in A's example set.
        row_b: its row in B's, None without a B.
    """

    kind: str
    row_a: int
    row_b: int | None = None


def choose_examples(a: ExampleSet, b: ExampleSet | None, each: int = 2) -> list[Chosen]:
    """Up to `each` examples of every kind; of equal confidence the lower key.

    With one reading: its surest mistakes and its least sure hits. With two, on the examples that both answered: those
    that A alone gets right and those that B alone gets right (the one that is wrong being surest), surest common
    mistakes, least sure common hits.
    """
    if b is None:
        kinds = {WRONG: (~a.right, -a.confidence), RIGHT: (a.right, a.confidence)}
        return [Chosen(kind, row) for kind, (of, by) in kinds.items() for row in _first(of, by, a.keys, each)]
    keys, rows_a, rows_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    right_a, right_b = a.right[rows_a], b.right[rows_b]
    sure_a, sure_b = a.confidence[rows_a], b.confidence[rows_b]
    kinds = {
        A_ALONE: (right_a & ~right_b, -sure_b),
        B_ALONE: (~right_a & right_b, -sure_a),
        BOTH_WRONG: (~right_a & ~right_b, -sure_a),
        BOTH_RIGHT: (right_a & right_b, sure_a),
    }
    return [
        Chosen(kind, int(rows_a[row]), int(rows_b[row]))
        for kind, (of, by) in kinds.items()
        for row in _first(of, by, keys, each)
    ]


def _first(of: np.ndarray, by: np.ndarray, keys: np.ndarray, count: int) -> list[int]:
    """Rows in `of`, lowest `by` first."""
    order = np.lexsort((keys, by))
    return order[of[order]][:count].tolist()
