"""`fgovd`: which of up to eleven fine-grained captions fits the box? Top-1, one row a difficulty (FG-OVD).

A tie between equally near captions counts by its share: an argmax with the right caption first would call it right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Example, ExampleSet, list_boxes
from benchmarks.metrics.intervals import Tally
from benchmarks.metrics.recall import score_single
from benchmarks.predictors.contract import Predictor
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import open_batches, open_sized
from cloc.formats.fgovd import Choice, ChoiceSet, read_fgovd

SPLITS = {"h_attributes": "hard", "m_attributes": "medium", "e_attributes": "easy", "shuffle_negatives": "trivial"}
PROTOCOL = "gt-box/captions-as-written/top1"
NO_CONSTANT = "no constant: each box has captions of its own, so no answer is the same for all"


class FgOvd(Task):
    """Every file of the four difficulties that is there."""

    name = "fgovd"
    needs = "region_text/fgovd/{h,m,e}_attributes.jsonl, shuffle_negatives.jsonl and the photos in coco/val2017/"
    runs_by_default = True
    layout = "of FG-CLIP's published lines"

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "region_text" / "fgovd" / f"{name}.jsonl" for root in roots for name in SPLITS]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        return [
            FoundSet("fgovd", SPLITS[file.stem], file, partial(read_fgovd, file, root / "coco"))
            for root in roots
            for file in self.list_locations([root])
            if file.is_file()
        ]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        expect("fgovd: hits", score_single(np.array([[0.9, 0.1], [0.1, 0.9]]), [0, 0], 1).tolist(), [1.0, 0.0])

    def run(self, predictor: Predictor, dataset: ChoiceSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        by_image: dict[Path, list[Choice]] = defaultdict(list)
        for choice in dataset.choices:
            by_image[choice.path].append(choice)
        paths, skipped = sorted(by_image)[: options.limit], dict[int, str]()
        asked, chosen, value, lead = [], [], [], []

        def open_one(path: Path) -> Image.Image | str:
            return open_sized(path, by_image[path][0].size)

        for rows, photos in open_batches(paths, open_one, options, f"{predictor.name} on fgovd", skipped):
            some = [by_image[paths[row]] for row in rows]
            regions = predictor.encode_regions(photos, [np.array([c.box_xyxy for c in own]) for own in some])
            texts = predictor.encode_texts([text for own in some for choice in own for text in choice.captions])
            place = 0
            for own, embeds in zip(some, regions, strict=True):
                for choice, region in zip(own, embeds, strict=True):
                    similarity = texts[place : place + len(choice.captions)] @ region
                    place += len(choice.captions)
                    order = np.argsort(-similarity, kind="stable")
                    asked.append(choice)
                    chosen.append(int(order[0]))
                    value.append(float(score_single(similarity[None], [0], 1)[0]))
                    lead.append(float(similarity[order[0]] - similarity[order[1]]))
        reasons = dataset.dropped.copy()
        for row, reason in skipped.items():
            reasons[reason] += len(by_image[paths[row]])
        score = _score(asked, np.array(value), found.split, reasons, options)
        lines = [
            {"image_id": c.image_id, "sent_id": c.sent_id, "chosen": c.captions[k], "right": c.captions[0], "value": v}
            for c, k, v in zip(asked, chosen, value, strict=True)
        ]
        return TaskOutput(
            name_dataset("fgovd", found.rendered),
            found.rendered,
            [score],
            lines,
            _make_examples(asked, chosen, np.array(value), np.array(lead)),
        )


def _score(asked: Sequence[Choice], value: NDArray, split: str, skipped, options: Options) -> Score:
    protocol = add_limit(PROTOCOL, options)
    if not asked:
        return Score(split, protocol, "top1", skipped=skipped, reason="no photo could be used")
    tally = Tally.of([choice.image_id for choice in asked], value)
    chance = float(np.mean([1 / len(choice.captions) for choice in asked]))
    return Score(split, protocol, "top1", tally, skipped=skipped, chance=chance, no_constant=NO_CONSTANT)


def _make_examples(asked: Sequence[Choice], chosen: Sequence[int], value: NDArray, lead: NDArray) -> ExampleSet:
    def show(row: int) -> Example:
        one = asked[row]
        truth, box = one.captions[0], list_boxes(one.box_xyxy)
        return Example(one.path, "which caption fits?", truth, one.captions[chosen[row]], box, phrase=truth)

    keys = np.array([choice.sent_id for choice in asked], dtype=np.int64)
    return ExampleSet(keys, value == 1.0, lead, show)
