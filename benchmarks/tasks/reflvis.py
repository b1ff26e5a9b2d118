"""`reflvis`: is the object at this place a this or a that? Asked by box, by point, by free form (Ferret; CLOC table 4).

An encoder takes the nearer of the two names to the region's embedding. A point is a window of 11 x 11 pixels and a free
form its box, as in Ferret's evaluation and in CLOC*. An MLLM is asked in words, the right class first in every other
question, and its answer is right where it holds a right name after the negation rule (`metrics/answers.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Example, ExampleSet, list_boxes
from benchmarks.metrics.answers import TORN, is_named, note_undecided_names
from benchmarks.metrics.intervals import Tally
from benchmarks.predictors.contract import Predictor
from benchmarks.predictors.mllm import MllmPredictor
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import open_batches, open_sized
from cloc.formats.reflvis import FORMS, Either, EitherSet, read_reflvis

FILE = "reflvis/lvis_eval.jsonl"
NEAREST, WORDS = "nearest-of-two-names", "question-in-words/negation-rule"


class RefLvis(Task):
    """Three rows: box, point, free form."""

    name = "reflvis"
    needs = f"{FILE} (the layout that ml-ferret's ferret/eval/model_lvis.py reads) and the photos in coco/val2017/"
    runs_by_default = True
    layout = "of ml-ferret's own reader; its file is not public"
    kinds = ("encoder", "mllm")

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / FILE for root in roots]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        return [
            FoundSet("reflvis", "val", root / FILE, partial(read_reflvis, root / FILE, root / "coco" / "val2017"))
            for root in roots
            if (root / FILE).is_file()
        ]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        expect("reflvis: a denied name", is_named("It is not a cat, but a dog.", ["cat"]), False)
        expect("reflvis: a named one", is_named("It is a dog, not a cat.", ["dog"]), True)

    def run(self, predictor: Any, dataset: EitherSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        by_image: dict[Path, list[Either]] = defaultdict(list)
        for question in dataset.questions:
            by_image[question.path].append(question)
        paths, skipped, lines = sorted(by_image)[: options.limit], dict[int, str](), []
        numbers = {path: place for place, path in enumerate(sorted(by_image))}
        in_words = getattr(predictor, "kind", "encoder") == "mllm"

        def open_one(path: Path) -> Image.Image | str:
            return open_sized(path, by_image[path][0].size)

        for rows, photos in open_batches(paths, open_one, options, f"{predictor.name} on reflvis", skipped):
            some = [by_image[paths[row]] for row in rows]
            pairs = [(own, form) for own in some for form in FORMS]
            asked = [[q for q in own if form in q.boxes_xyxy] for own, form in pairs]
            pictures = [photo for photo in photos for _ in FORMS]
            answer = ask_in_words if in_words else ask_by_region
            for (_, form), questions, answers in zip(
                pairs, asked, answer(predictor, pictures, asked, pairs), strict=True
            ):
                lines += [
                    {"id": q.number, "form": form, "image": numbers[q.path], **one}
                    for q, one in zip(questions, answers, strict=True)
                ]
        reasons = Counter(dataset.dropped)
        for row, reason in skipped.items():
            reasons[reason] += len(by_image[paths[row]])
        protocol = f"{WORDS}/{predictor.box_format.name}" if in_words else NEAREST
        scores = [_score(lines, form, found.split, add_limit(protocol, options), reasons) for form in FORMS]
        examples = _make_examples([line for line in lines if line["form"] == "box"], dataset.questions)
        return TaskOutput(name_dataset("reflvis", found.rendered), found.rendered, scores, lines, examples)


def ask_by_region(predictor: Predictor, photos: Sequence[Image.Image], asked, pairs) -> list[list[dict]]:
    """The nearer name for each question; equal ones count half."""
    boxes = [
        np.array([q.boxes_xyxy[form] for q in questions]).reshape(-1, 4)
        for questions, (_, form) in zip(asked, pairs, strict=True)
    ]
    found = []
    for questions, regions in zip(asked, predictor.encode_regions(photos, boxes), strict=True):
        texts = predictor.encode_texts([text for q in questions for text in (q.name, q.other)])
        near = np.einsum("qte,qe->qt", texts.reshape(len(questions), 2, -1), regions) if questions else np.zeros((0, 2))
        lead = near[:, 0] - near[:, 1]
        found.append(
            [
                {"text": q.name if gap >= 0 else q.other, "value": float(np.sign(gap) + 1) / 2, "lead": abs(float(gap))}
                for q, gap in zip(questions, lead, strict=True)
            ]
        )
    return found


def ask_in_words(predictor: MllmPredictor, photos: Sequence[Image.Image], asked, pairs) -> list[list[dict]]:
    """The answer in words to each question."""
    found = []
    for photo, questions, (_, form) in zip(photos, asked, pairs, strict=True):
        prompts = []
        for q in questions:
            first, second = (q.name, q.other) if q.number % 2 == 0 else (q.other, q.name)
            place = predictor.box_format.write(q.boxes_xyxy[form], q.size)
            prompts.append(f"Is the object {place} of the image a {first} or a {second}?")
        answers = predictor.answer([photo] * len(prompts), prompts) if prompts else []
        found.append(
            [
                {
                    "question": text,
                    "text": answer,
                    "value": float(is_named(answer, q.words)),
                    "lead": 0.0,
                    "torn": bool(note_undecided_names([(answer, q.words, q.other)])),
                }
                for q, text, answer in zip(questions, prompts, answers, strict=True)
            ]
        )
    return found


def _score(lines: Sequence[dict], form: str, split: str, protocol: str, skipped: Counter[str]) -> Score:
    own = [line for line in lines if line["form"] == form]
    if not own:
        return Score(f"{split}/{form}", protocol, "accuracy", skipped=skipped, reason="no question of this form")
    tally = Tally.of([line["image"] for line in own], [line["value"] for line in own])
    torn = sum(line.get("torn", False) for line in own)
    reason = f"{torn:,} {TORN}" if torn else None
    return Score(
        f"{split}/{form}", protocol, "accuracy", tally, skipped=skipped, chance=0.5, constant=0.5, reason=reason
    )


def _make_examples(lines: Sequence[dict], questions: Sequence[Either]) -> ExampleSet:
    def show(row: int) -> Example:
        one, line = questions[lines[row]["id"]], lines[row]
        question = f"a {one.name} or a {one.other}?"
        return Example(one.path, question, one.name, line["text"], list_boxes(one.boxes_xyxy["box"]), phrase=one.name)

    keys = np.array([line["id"] for line in lines], dtype=np.int64)
    right = np.array([line["value"] == 1.0 for line in lines], dtype=bool)
    return ExampleSet(keys, right, np.array([line["lead"] for line in lines]), show)
