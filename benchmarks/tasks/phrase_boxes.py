"""One box for each phrase, from whatever kind of model: what `refcoco` and `flickr30k_grounding` share.

An encoder with a Prompter and a detector are asked through `ground` (of a detector that is its surest box when the
phrase is its only concept). An MLLM is asked in words, and the first box of its answer counts, read strictly by the
convention that the host declares; wording and convention are part of the protocol. A phrase without a box is a wrong
answer: it stays in the denominator, and the reasons are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.predictors.contract import Predictor
from benchmarks.predictors.detector import DetectorPredictor
from benchmarks.predictors.mllm import CONVENTIONS, MllmPredictor

PHRASE_BOX = "phrase-box"
NO_BOX = "no_box_found"
GROUNDERS = ("encoder", "detector", "mllm")
"""Kinds of predictor that can give a box for a phrase."""

AnyPredictor = Predictor | DetectorPredictor | MllmPredictor


@dataclass(frozen=True, eq=False)
class PhraseBox:
    """The answer to one phrase.

    Attributes:
        box_xyxy: (4,) pixels of the original image, NaN where there is none.
        failure: why there is none; empty where there is one.
        answer_text: the answer in words, of an MLLM.
        fits: where there is none, the words of `--coordinates` by which the answer would hold a box.
    """

    box_xyxy: NDArray[np.float64]
    failure: str = ""
    answer_text: str | None = None
    fits: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        """For a line of the predictions."""
        found: dict[str, object] = {} if self.answer_text is None else {"answer": self.answer_text}
        if self.failure:
            return {**found, "failure": self.failure}
        return {**found, "pred_bbox_xyxy": [round(float(value), 3) for value in self.box_xyxy]}


def find_kind(predictor: AnyPredictor) -> str:
    """`encoder`, `detector` or `mllm`."""
    return getattr(predictor, "kind", "encoder")


def explain_no_boxes(predictor: AnyPredictor) -> str | None:
    """Why a model gives no box for a phrase, None where it does."""
    return cast(Predictor, predictor).cannot_ground if find_kind(predictor) == "encoder" else None


def name_protocol(predictor: AnyPredictor, *more: str) -> str:
    """`phrase-box/.../xyxy-pixels`, and for an MLLM how it is asked and how its answer is read."""
    words = [PHRASE_BOX, *more, "xyxy-pixels"]
    if find_kind(predictor) == "mllm":
        mllm = cast(MllmPredictor, predictor)
        words += [f"asked '{mllm.question}'", f"first-box-{mllm.box_format.name}"]
    return "/".join(words)


def ask_boxes(
    predictor: AnyPredictor, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]
) -> list[list[PhraseBox]]:
    """The answers for each image's phrases; the predictor can box, see `explain_no_boxes`."""
    if find_kind(predictor) == "mllm":
        return _in_words(cast(MllmPredictor, predictor), images, phrases)
    found = cast(Predictor | DetectorPredictor, predictor).ground(images, phrases)
    return [[PhraseBox(box, "" if np.isfinite(box).all() else NO_BOX) for box in boxes] for boxes in found]


def _in_words(
    predictor: MllmPredictor, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]
) -> list[list[PhraseBox]]:
    pairs = [(image, phrase) for image, own in zip(images, phrases, strict=True) for phrase in own]
    questions = [predictor.question.replace("{}", phrase) for _, phrase in pairs]
    answers = predictor.answer([image for image, _ in pairs], questions) if pairs else []
    boxes = iter(_read(predictor, answer, image.size) for answer, (image, _) in zip(answers, pairs, strict=True))
    return [[next(boxes) for _ in own] for own in phrases]


def _read(predictor: MllmPredictor, answer: str, size: tuple[int, int]) -> PhraseBox:
    reading = predictor.box_format.read(answer, size)
    if reading.boxes_xyxy:
        return PhraseBox(np.array(reading.boxes_xyxy[0], dtype=np.float64), answer_text=answer)
    others = {word: places for word, places in CONVENTIONS.items() if places != predictor.box_format}
    fits = tuple(word for word, places in others.items() if places.read(answer, size).boxes_xyxy)
    return PhraseBox(np.full(4, np.nan), next(iter(reading.failures)), answer, fits)


def describe_failures(answers: Sequence[PhraseBox]) -> str | None:
    """One line for a row: how many phrases have no box, and why; None where all have one.

    Where most answers would hold a box by other conventions, those are named. Nothing is ever read by them unasked.
    """
    counts = Counter(answer.failure for answer in answers if answer.failure)
    if not counts:
        return None
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
    line = f"without a box, counted as wrong: {counts.total():,} of {len(answers):,} ({reasons})"
    fits = Counter(word for answer in answers for word in answer.fits)
    most = max(fits.values(), default=0)
    if 2 * most <= len(answers):
        return line
    others = " or ".join(word for word, count in fits.items() if count == most)
    return f"{line}; read as {others}, {most:,} hold one: is the host's way of writing a box declared right?"
