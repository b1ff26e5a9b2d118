"""From galleries to drawn figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from benchmarks.examples import Gallery, Shown
from benchmarks.predictors.contract import Predictor
from benchmarks.report.choice import choose
from benchmarks.report.drawing import drawn

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
class Reading:
    """One predictor's gallery.

    Attributes:
        name: model and reading, for captions.
        gallery: its examples.
        predictor: for similarity maps; None draws none.
    """

    name: str
    gallery: Gallery
    predictor: Predictor | None = None


def section(title: str, readings: Sequence[Reading], each: int = 2) -> Section:
    """The chosen examples of one reading, or of A beside B; one whose image is gone by now is left out."""
    a, b = readings[0], readings[1] if len(readings) > 1 else None
    figures, maps = [], []
    for chosen in choose(a.gallery, b.gallery if b else None, each):
        rows = [chosen.row_a] if b is None else [chosen.row_a, chosen.row_b]
        shown = [reading.gallery.show(row) for reading, row in zip(readings, rows, strict=True)]
        image = open_image(shown[0])
        if image is None:
            continue
        pictures = [
            _picture(image, one, reading.name, bool(reading.gallery.right[row]))
            for one, reading, row in zip(shown, readings, rows, strict=True)
        ]
        figures.append(Figure(chosen.kind, shown[0].question, tuple(pictures)))
        if shown[0].phrase and len(maps) < MAPS and all(reading.predictor for reading in readings):
            maps.append(_maps(image, shown[0], readings))
    return Section(title, (*figures, *maps))


def open_image(shown: Shown) -> Image.Image | None:
    """The image in RGB, None where it is gone or broken."""
    from cloc.images import ImageError, decode  # loads torch, which the page of a scored file needs not

    try:
        return decode(shown.image.read_bytes())
    except (ImageError, OSError):
        return None


def _picture(image: Image.Image, shown: Shown, name: str, right: bool) -> Picture:
    verdict = "right" if right else "wrong"
    said = f"{name}: {shown.answer}" if shown.answer else name
    told = f" (it is {shown.truth})" if shown.truth and not right else ""
    source = drawn(image, shown.asked_xyxy, shown.truth_xyxy, shown.answer_xyxy)
    words = f"{shown.question}; {said}, {verdict}{told}; boxes drawn on {shown.image.name}"
    return Picture(source, words, f"{said}, {verdict}{told}")


def _maps(image: Image.Image, shown: Shown, readings: Sequence[Reading]) -> Figure:
    from benchmarks.report.maps import similarity_map

    pictures = []
    for reading in readings:
        heat = similarity_map(reading.predictor, image, shown.phrase)
        truth = shown.truth_xyxy or shown.asked_xyxy
        words = f"map of the similarity to '{shown.phrase}' over {shown.image.name}, as {reading.name} sees it"
        pictures.append(Picture(drawn(image, truth=truth, heat=heat), words, reading.name))
    return Figure("similarity map", f"'{shown.phrase}'", tuple(pictures))
