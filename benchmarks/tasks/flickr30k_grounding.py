"""`flickr30k_grounding`: the box of each phrase of Flickr30k Entities, IoU 0.5.

Two counts are in use: `merged-box`, the box around all boxes of the phrase's id (Ferret, CLOC table 4), and `any-box`,
any one of them (MDETR, GLIP). Phrases are asked alone, as they stand in the sentence, of an encoder with a Prompter, a
detector or an MLLM (`phrase_boxes.py` says how).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Example, ExampleSet, list_boxes
from benchmarks.metrics.grounding import score_constants, score_hits, summarize_constants
from benchmarks.metrics.intervals import Tally
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import open_batches, open_sized
from benchmarks.tasks.phrase_boxes import (
    GROUNDERS,
    AnyPredictor,
    PhraseBox,
    ask_boxes,
    describe_failures,
    explain_no_boxes,
    name_protocol,
)
from cloc.boxes import iou
from cloc.formats.flickr30k_grounding import Entity, EntityImage, EntitySet, read_entities
from cloc.images import Placement

FOLDER, PHOTOS = "flickr30k", "flickr30k-images"
COUNTS = ("merged-box", "any-box")


class Flickr30kGrounding(Task):
    """Splits val and test."""

    name = "flickr30k_grounding"
    needs = f"{FOLDER}/Annotations/*.xml, Sentences/*.txt, val.txt, test.txt and photos in {FOLDER}/{PHOTOS}/"
    runs_by_default = True
    kinds = GROUNDERS

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / FOLDER / f"{split}.txt" for root in roots for split in ("val", "test")]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = []
        for file in self.list_locations(roots):
            if file.is_file() and (file.parent / "Annotations").is_dir():
                load = partial(read_entities, file.parent, file.parent / PHOTOS, file.stem)
                found.append(FoundSet("flickr30k_grounding", file.stem, file, load))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`. An answer that is one of two boxes, not the box around both."""
        two_boxes = Entity(0, "two", ((0.0, 0.0, 10.0, 10.0), (30.0, 0.0, 40.0, 10.0)))
        got = score_overlaps(two_boxes, np.array([0.0, 0.0, 10.0, 10.0]))
        expect("flickr30k_grounding: two boxes", [bool(value >= 0.5) for value in got], [False, True])

    def run(self, predictor: AnyPredictor, dataset: EntitySet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        images, skipped = dataset.images[: options.limit], dict[int, str]()
        rows: list[tuple[EntityImage, Entity]] = []
        answers, values = list[PhraseBox](), []
        cannot = explain_no_boxes(predictor)
        parts = () if cannot else open_batches(images, _open, options, f"{predictor.name} on {found.split}", skipped)
        for some, photos in parts:
            asked = [(images[row], photo) for row, photo in zip(some, photos, strict=True) if images[row].entities]
            phrases = [[entity.text for entity in image.entities] for image, _ in asked]
            boxes = ask_boxes(predictor, [photo for _, photo in asked], phrases) if asked else []
            for (image, _), own in zip(asked, boxes, strict=True):
                for entity, box in zip(image.entities, own, strict=True):
                    rows.append((image, entity))
                    answers.append(box)
                    values.append((0.0, 0.0) if box.failure else score_overlaps(entity, box.box_xyxy))
        reasons = dataset.dropped.copy()
        for row, reason in skipped.items():
            reasons[reason] += len(images[row].entities)
        why = cannot or (None if rows else "no photo could be used")
        cause, ids = why or describe_failures(answers), [image.image_id for image, _ in rows]
        scores = []
        for place, count in enumerate(COUNTS):
            protocol = add_limit(name_protocol(predictor, count), options)
            facts: dict[str, Any] = {"skipped": reasons, "reason": cause}
            if not why:
                blind = summarize_constants(score_hits(score_constant_overlaps(rows, count), 0.5), ids)
                facts |= {"chance": blind.drawn, "constant": blind.best, "no_constant": blind.why_none}
                facts["tally"] = Tally.of(ids, score_hits([value[place] for value in values], 0.5))
            scores.append(Score(found.split, protocol, "acc@0.5", **facts))
        lines = [
            {"image_id": image.image_id, "sent_id": entity.number, "phrase": entity.text}
            | answer.facts()
            | {"iou": round(value[0], 6)}
            for (image, entity), answer, value in zip(rows, answers, values, strict=True)
        ]
        return TaskOutput(
            name_dataset("flickr30k_grounding", found.rendered),
            found.rendered,
            scores,
            lines,
            _make_examples(rows, answers, values),
        )


def merge_boxes(boxes_xyxy: object) -> NDArray[np.float64]:
    """(4,) the box around all of (N, 4)."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def score_overlaps(entity: Entity, box_xyxy: NDArray[np.float64]) -> tuple[float, float]:
    """IoU with the merged box, and the best with any of the boxes."""
    merged = iou([box_xyxy], [merge_boxes(entity.boxes_xyxy)])[0, 0]
    return float(merged), float(iou([box_xyxy], entity.boxes_xyxy).max())


def score_constant_overlaps(rows: Sequence[tuple[EntityImage, Entity]], count: str) -> NDArray[np.float64]:
    """(T + 1, X) IoU of constant boxes on the padded square with every phrase's boxes, by one of `COUNTS`; see
    `score_constants`. The constants are merged boxes.
    """
    places = [Placement(*image.size) for image, _ in rows]
    canvas = [place.to_canvas(entity.boxes_xyxy) for place, (_, entity) in zip(places, rows, strict=True)]
    extents = [place.to_canvas([[0, 0, place.width, place.height]])[0] for place in places]
    merged = [merge_boxes(boxes) for boxes in canvas]
    return score_constants(merged, extents, cast(Any, canvas) if count == "any-box" else None)


def _open(image: EntityImage) -> Image.Image | str:
    return open_sized(image.path, image.size)


def _make_examples(
    rows: Sequence[tuple[EntityImage, Entity]], answers: Sequence[PhraseBox], values: Sequence
) -> ExampleSet:
    def show(row: int) -> Example:
        image, entity = rows[row]
        truth, answer = list_boxes(entity.boxes_xyxy), answers[row]
        box = () if answer.failure else list_boxes(answer.box_xyxy)
        asked, said = f"where is '{entity.text}'?", answer.answer_text or answer.failure
        return Example(image.path, asked, answer=said, truth_xyxy=truth, answer_xyxy=box, phrase=entity.text)

    merged = np.array([value[0] for value in values], dtype=np.float64)
    keys = np.array([entity.number for _, entity in rows], dtype=np.int64)
    return ExampleSet(keys, merged >= 0.5, np.abs(merged - 0.5), show)
