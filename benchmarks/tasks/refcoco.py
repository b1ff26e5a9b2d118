"""`refcoco`, `refcoco+`, `refcocog`: which object does an expression mean? Two protocols.

`candidates`, for an encoder: of the image's annotated objects (crowds left out) the one whose region embedding is
nearest to the expression; right where its IoU with the referent is at least 0.5. Chance is the share of candidates that
would be right; constant is to take the largest object.

`phrase-box`: the box that a phrase prompt, a detector or an MLLM gives (`phrase_boxes.py` says how). Coordinates: xyxy
pixels of the original image, cut at its border, no extra pixel. Constant is the best constant box on the canvas, sought
on the evaluation set among the referents' own boxes and their mean, so an upper bound; chance is the box of a referent
drawn from the other images.

Expressions by name alone and relational ones have splits of their own where the file says which is which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data_roots import FoundSet
from benchmarks.metrics.grounding import score_constants, score_hits, summarize_constants
from benchmarks.metrics.intervals import Tally
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import explain_none
from benchmarks.tasks.phrase_boxes import (
    GROUNDERS,
    AnyPredictor,
    describe_failures,
    explain_no_boxes,
    find_kind,
    name_protocol,
)
from benchmarks.tasks.referring import Referred, refer
from cloc.formats.refcoco import ReferringSet, read_refcoco, refcoco_name, refcoco_splits
from cloc.images import Placement

CANDIDATES = "candidates/nearest-region"
METRICS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "acc@0.5": partial(score_hits, threshold=0.5),
    "acc@0.75": partial(score_hits, threshold=0.75),
    "mean_iou": np.asarray,
}
NO_OBJECTS = "no annotated object on the image"
NO_EMBEDDINGS = {
    "detector": "a detector gives boxes, no region embeddings",
    "mllm": "an MLLM gives words, no region embeddings",
}


class RefCoco(Task):
    """One of the three RefCOCO sets, every split of it that is there but `train`."""

    runs_by_default = True
    kinds = GROUNDERS

    def __init__(self, name: str) -> None:
        self.name = name
        self.needs = f"refcoco/{name}/refs(*).p, instances.json, photos in refcoco/images/mscoco/images/train2014/"

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "refcoco" / self.name for root in roots]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = []
        for root in roots:
            folder = root / "refcoco"
            splits = refcoco_splits(folder, self.name) if folder.is_dir() else ()
            for split in splits:
                if split != "train":
                    load = partial(read_refcoco, folder, self.name, split)
                    found.append(FoundSet(refcoco_name(folder, self.name), split, folder / self.name, load))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`."""
        ious = np.array([1.0, 0.6, 0.2])
        expect(f"{self.name}: acc@0.5", Tally.of([1, 2, 3], METRICS["acc@0.5"](ious)).value(), 2 / 3)
        expect(f"{self.name}: acc@0.75", Tally.of([1, 2, 3], METRICS["acc@0.75"](ious)).value(), 1 / 3)
        boxes = np.array([[0.0, 0.0, 0.5, 0.5]] * 3)
        blind = score_constants(boxes, np.array([[0.0, 0.0, 1.0, 1.0]] * 3))
        constant = summarize_constants(METRICS["acc@0.5"](blind), [1, 2, 3])
        expect(f"{self.name}: constant box of equal referents", (constant.best, constant.drawn), (1.0, 1.0))

    def run(self, predictor: AnyPredictor, dataset: ReferringSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        answers = refer(predictor, dataset, options)
        scores = []
        for split, inside in group_expressions(answers, found.split).items():
            dropped = Counter(dataset.dropped) if inside.all() else Counter()
            scores += score_candidates(
                answers, split, inside, dropped, options, NO_EMBEDDINGS.get(find_kind(predictor))
            )
            scores += score_boxes(answers, split, inside, dropped, options, predictor)
        name, examples = name_dataset(found.dataset, dataset.rendered), answers.examples()
        return TaskOutput(name, dataset.rendered, scores, answers.lines(), examples)


def group_expressions(answers: Referred, split: str) -> dict[str, np.ndarray]:
    """Split name to a mask of its expressions: one for each kind that the file names, and all."""
    kinds = np.array([expression.kind or "" for expression in answers.expressions], dtype=np.str_)
    everything = np.ones(len(kinds), dtype=bool)
    named = [kind for kind in ("name", "relational") if (kinds == kind).any()]
    if not named:
        return {split: everything}
    return {**{f"{split}/{kind}": kinds == kind for kind in named}, f"{split}/all": everything}


def score_candidates(
    answers: Referred, split: str, inside: np.ndarray, dropped: Counter[str], options: Options, cannot: str | None
) -> list[Score]:
    """acc@0.5 of the nearest annotated object; one row with the reason where the model cannot."""
    protocol, usable = add_limit(CANDIDATES, options), answers.skips == ""
    if cannot:
        return [Score(split, protocol, "acc@0.5", reason=cannot)]
    scored = inside & usable & answers.has_candidates
    skipped = dropped + Counter(answers.skips[inside & ~usable].tolist())
    without = int((inside & usable & ~answers.has_candidates).sum())
    skipped += Counter({NO_OBJECTS: without})
    if not scored.any():
        why = NO_OBJECTS if without else explain_none(answers.photos_skipped, answers.images)
        return [Score(split, protocol, "acc@0.5", skipped=skipped, reason=why)]
    tally = Tally.of(answers.image_ids[scored], score_hits(answers.chosen_iou[scored], 0.5))
    chance, constant = float(answers.right_share[scored].mean()), float(answers.largest_is_right[scored].mean())
    return [Score(split, protocol, "acc@0.5", tally, skipped=skipped, chance=chance, constant=constant)]


def score_boxes(
    answers: Referred,
    split: str,
    inside: np.ndarray,
    dropped: Counter[str],
    options: Options,
    predictor: AnyPredictor,
) -> list[Score]:
    """acc@0.5, acc@0.75 and mean IoU of the phrase's box; a phrase without a box counts as an IoU of 0."""
    protocol, scored = add_limit(name_protocol(predictor), options), inside & (answers.skips == "")
    cannot = explain_no_boxes(predictor)
    skipped = dropped + Counter(answers.skips[inside & ~scored].tolist())
    if cannot or not scored.any():
        why = cannot or explain_none(answers.photos_skipped, answers.images)
        return [Score(split, protocol, metric, skipped=skipped, reason=why) for metric in METRICS]
    rows = np.flatnonzero(scored)
    known = {image.image_id: Placement(image.width, image.height) for image in answers.images}
    places = [known[image_id] for image_id in answers.image_ids[rows].tolist()]
    meant = [answers.expressions[row].box_xyxy for row in rows.tolist()]
    referents = [place.to_canvas([box])[0] for place, box in zip(places, meant, strict=True)]
    extents = [place.to_canvas([[0, 0, place.width, place.height]])[0] for place in places]
    blind = score_constants(referents, extents)
    boxes = [box for row in rows.tolist() if (box := answers.boxes[row]) is not None]
    reason, scores = describe_failures(boxes), list[Score]()
    for metric, value_of in METRICS.items():
        constant = summarize_constants(value_of(blind), answers.image_ids[rows])
        tally = Tally.of(answers.image_ids[rows], value_of(answers.box_iou[rows]))
        facts: dict[str, Any] = {"skipped": skipped, "chance": constant.drawn, "constant": constant.best}
        facts |= {"reason": reason, "no_constant": constant.why_none}
        scores.append(Score(split, protocol, metric, tally, **facts))
    return scores
