"""Answers in words, scored alone: POPE's yes and no, Ref-LVIS's names, a judge's reviews of Ferret-Bench.

Annotations are the tasks' own files, predictions JSON lines: `question_id` and `answer` (or `text`) for POPE, `id` and
`text` for Ref-LVIS, `question_id` and `tuple` ([points of the reference, points of the answer], as ml-ferret's reviews
have it) for Ferret-Bench. A question without an answer counts as wrong; where that cannot be (reviews), it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.metrics.answers import (
    as_yes,
    is_named,
    is_yes,
    note_undecided,
    note_undecided_names,
    score_blind_yes,
    score_relative,
    score_yes,
)
from benchmarks.metrics.intervals import Tally
from benchmarks.scoring.reading import read_integers, require_different
from cloc.formats.reflvis import words_of

POPE, REFLVIS, FERRET = "pope", "reflvis", "ferret_bench"


NO_JUDGE_CONSTANT = "neither chance nor constant: points are a judge's, who would have to review a constant answer"


@dataclass(frozen=True)
class _Read:
    """Whether each answer is right, other figures, their protocol, what never looking reaches (as fields of a row, by
    figure) and notes.
    """

    right: Sequence[bool]
    values: Mapping[str, float | None]
    protocol: str
    blind: Mapping[str, Mapping[str, Any]]
    notes: Counter[str]


@dataclass(frozen=True)
class Figures:
    """What a file of answers came to.

    Attributes:
        protocol: its id.
        tallies: means over questions.
        values: other figures.
        count: questions.
        skipped: answers to no question, by reason.
        notes: what else is to be said.
        blind: by figure, `chance`, `constant` and `no_constant` of its row.
    """

    protocol: str
    tallies: Mapping[str, Tally]
    values: Mapping[str, float | None]
    count: int
    skipped: Counter[str]
    notes: Counter[str]
    blind: Mapping[str, Mapping[str, Any]]


def find_kind(first: Mapping[str, Any]) -> str | None:
    """The kind of annotation file by its first line; None for another."""
    if "question_id" in first and "label" in first:
        return POPE
    if "neg_class" in first and "synonyms" in first:
        return REFLVIS
    return FERRET if "question_id" in first and "category" in first else None


def score_words(kind: str, truth: Sequence[Mapping], answers: Sequence[dict[str, Any]], judge: str | None) -> Figures:
    """Score answers against their questions.

    Args:
        kind: of `find_kind`.
        truth: lines of the annotation file.
        answers: lines of the predictions.
        judge: who wrote the reviews; it becomes part of the protocol.

    Raises:
        ValueError: an id occurs twice, no answer belongs to a question, reviews lack, or no judge is named.
    """
    name = "id" if kind == REFLVIS else "question_id"
    numbered = [{**line, name: line.get(name, place)} for place, line in enumerate(truth)]
    asked, answer_ids = read_integers(numbered, name, "annotations"), read_integers(answers, name, "predictions")
    require_different(asked, name, "annotations")
    require_different(answer_ids, name, "predictions")
    known = set(asked.tolist())
    by_id = {int(number): line for number, line in zip(answer_ids, answers, strict=True) if int(number) in known}
    if len(answers) and not by_id:
        raise ValueError(f"predictions: none of {len(answers):,} {name} is in the annotation file; is it another's?")
    skipped = Counter({f"unknown_{name}": len(answers) - len(by_id)})
    silent = len(known) - len(by_id)
    rows = [(line, by_id.get(int(number))) for number, line in zip(asked, numbered, strict=True)]
    if kind == FERRET:
        return _reviews(rows, judge, silent, skipped)
    read = (_pope if kind == POPE else _reflvis)(rows)
    notes = Counter({"questions without an answer, counted as wrong": silent}) + read.notes
    images = np.unique([_image(line) for line in numbered], return_inverse=True)[1]
    tallies = {"accuracy": Tally.of(images, read.right)}
    return Figures(read.protocol, tallies, read.values, len(rows), skipped, notes, read.blind)


def _pope(rows: Sequence[tuple[Mapping, Mapping | None]]) -> _Read:
    odd = [line.get("label") for line, _ in rows if as_yes(line.get("label")) is None]
    if odd:
        raise ValueError(f"annotations: expected label yes or no, got {odd[0]!r} ({len(odd):,} such)")
    true = [as_yes(line.get("label")) is True for line, _ in rows]
    texts = [None if answer is None else _text(answer) for _, answer in rows]
    said = [not want if text is None else is_yes(text) for text, want in zip(texts, true, strict=True)]
    right = [a == b for a, b in zip(said, true, strict=True)]
    notes = note_undecided([text for text in texts if text is not None])
    return _Read(right, score_yes(said, true), "yes-no/first-sentence-rule", score_blind_yes(true), notes)


def _reflvis(rows: Sequence[tuple[Mapping, Mapping | None]]) -> _Read:
    right = [answer is not None and is_named(_text(answer), words_of(line)) for line, answer in rows]
    blind = {"accuracy": {"chance": 0.5, "constant": 0.5}}
    notes = note_undecided_names(
        [(_text(answer), words_of(line), str(line.get("neg_class", ""))) for line, answer in rows if answer is not None]
    )
    return _Read(right, {}, "question-in-words/negation-rule", blind, notes)


def _reviews(
    rows: Sequence[tuple[Mapping, Mapping | None]], judge: str | None, silent: int, skipped: Counter[str]
) -> Figures:
    if not judge:
        raise ValueError(
            "--judge: expected who wrote the reviews of Ferret-Bench (such as gpt-4o-2024-08-06), got none"
        )
    if silent:
        raise ValueError(f"predictions: {silent} of {len(rows)} questions have no review; have all of them reviewed")
    pairs = [_points(review) for _, review in rows if review is not None]
    total = score_relative(pairs)
    notes = Counter[str]()
    blind = {"relative_score": {"no_constant": NO_JUDGE_CONSTANT}}
    return Figures(f"relative-score/judge-{judge}", {}, {"relative_score": total}, len(rows), skipped, notes, blind)


def _points(review: Mapping[str, Any]) -> tuple[float, float]:
    pair = review.get("tuple")
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(v) in (int, float) and 0 < v <= 10 for v in pair):
        raise ValueError(
            f"predictions: expected tuple of two points above 0 and up to 10, got {pair!r} in the review of question "
            f"{review.get('question_id')}"
        )
    return float(pair[0]), float(pair[1])


def _text(answer: Mapping[str, Any]) -> str:
    text = answer.get("answer", answer.get("text"))
    if isinstance(text, bool):
        return "yes" if text else "no"
    if not isinstance(text, str):
        number = answer.get("question_id", answer.get("id"))
        raise ValueError(f"predictions: expected a text answer to question {number}, got {text!r:.80}")
    return text


def _image(line: Mapping[str, Any]) -> str:
    return str(line.get("image", line.get("image_path", "")))
