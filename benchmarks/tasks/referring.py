"""Ask a predictor what every expression means: the nearest annotated object (an encoder), and the phrase's box.

Letters: X expressions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.examples import Example, ExampleSet, list_boxes
from benchmarks.predictors.contract import Predictor
from benchmarks.tasks.contract import Options
from benchmarks.tasks.photos import iterate_photos, limit_images
from benchmarks.tasks.phrase_boxes import AnyPredictor, PhraseBox, ask_boxes, explain_no_boxes, find_kind
from cloc.boxes import area, iou, paired_iou
from cloc.formats.annotated import AnnotatedImage
from cloc.formats.refcoco import Expression, ReferringSet

RIGHT_IOU = 0.5


@dataclass(frozen=True)
class Referred:
    """The answers to X expressions.

    Attributes:
        expressions: what was asked, ordered by image.
        images: the images that were asked for.
        image_ids: (X,).
        skips: (X,) why an expression has no answer, empty text where it has one.
        has_candidates: (X,) bool, the image has at least one annotated object.
        chosen: (X,) annotation id of the nearest object, -1 where there is none, and
        chosen_iou: (X,) its IoU with the referent.
        right_share: (X,) share of the candidates with an IoU of at least 0.5 with the referent.
        largest_is_right: (X,) bool, for the candidate of the largest area.
        boxes: X answers with a box, or with the reason why there is none; None where it was not asked for.
        box_iou: (X,) their IoU with the referent.
        confidence: (X,) lead of the nearest object's cosine over the second's.
        photos_skipped: reason by image id.
    """

    expressions: Sequence[Expression]
    images: Sequence[AnnotatedImage]
    image_ids: NDArray[np.int64]
    skips: NDArray[np.str_]
    has_candidates: NDArray[np.bool_]
    chosen: NDArray[np.int64]
    chosen_iou: NDArray[np.float64]
    right_share: NDArray[np.float64]
    largest_is_right: NDArray[np.bool_]
    boxes: list[PhraseBox | None]
    box_iou: NDArray[np.float64]
    confidence: NDArray[np.float64]
    photos_skipped: Mapping[int, str]

    def lines(self) -> list[dict[str, Any]]:
        """One JSON object an expression; `pred_bbox_xyxy` is the phrase's box in pixels."""
        lines = []
        for row, asked in enumerate(self.expressions):
            line: dict[str, Any] = {"image_id": asked.image_id, "sent_id": asked.sent_id, "expression": asked.text}
            if self.skips[row]:
                lines.append({**line, "skipped": str(self.skips[row])})
                continue
            if self.has_candidates[row]:
                line["chosen_annotation_id"] = int(self.chosen[row])
                line["chosen_iou"] = round(float(self.chosen_iou[row]), 6)
            box = self.boxes[row]
            if box is not None:
                line |= box.facts() | {"iou": round(float(self.box_iou[row]), 6)}
            lines.append(line)
        return lines

    def examples(self) -> ExampleSet:
        """Every expression of which one annotated object was chosen, right as in `candidates/nearest-region`; where
        none was, of a model without region embeddings, every box, and its confidence is the distance to the threshold.
        """
        by_box = not self.has_candidates.any()
        boxed = np.array([box is not None for box in self.boxes], dtype=bool)
        rows = np.flatnonzero((self.skips == "") & (boxed if by_box else self.has_candidates))
        by_id = {image.image_id: image for image in self.images}

        def show(place: int) -> Example:
            row = rows[place]
            asked, image = self.expressions[row], by_id[int(self.image_ids[row])]
            chosen = image.boxes_xyxy[image.annotation_ids == self.chosen[row]]
            box = self.boxes[row]
            if by_box:
                chosen = box.box_xyxy if box is not None and not box.failure else chosen[:0]
            return Example(
                image.path,
                f"which object is meant by '{asked.text}'?",
                answer=(box.answer_text or box.failure) if by_box and box is not None else "",
                truth_xyxy=list_boxes(asked.box_xyxy),
                answer_xyxy=list_boxes(chosen),
                phrase=asked.text,
            )

        keys = np.array([self.expressions[row].sent_id for row in rows.tolist()], dtype=np.int64)
        overlap = (self.box_iou if by_box else self.chosen_iou)[rows]
        confidence = np.abs(overlap - RIGHT_IOU) if by_box else self.confidence[rows]
        return ExampleSet(keys, overlap >= RIGHT_IOU, confidence, show)


def refer(predictor: AnyPredictor, dataset: ReferringSet, options: Options) -> Referred:
    """Ask for every expression of the split, image by image."""
    by_image: dict[int, list[Expression]] = defaultdict(list)
    for expression in dataset.expressions:
        by_image[expression.image_id].append(expression)
    images = limit_images([dataset.images[image_id] for image_id in by_image], options)
    asked = [expression for image in images for expression in by_image[image.image_id]]
    counts = [len(by_image[image.image_id]) for image in images]
    first = dict(zip([image.image_id for image in images], np.cumsum(counts) - counts, strict=True))
    encodes, boxes_too = find_kind(predictor) == "encoder", explain_no_boxes(predictor) is None
    distinct = sorted({expression.text for expression in asked}) if encodes else []
    encoder = cast(Predictor, predictor)  # asked only where it encodes
    texts = dict(zip(distinct, encoder.encode_texts(distinct), strict=True)) if encodes else {}
    skipped: dict[int, str] = {}
    answers = _blank(asked, images, skipped)
    for kept, photos in iterate_photos(images, options, f"{predictor.name} on {dataset.name}", skipped):
        objects = [image.boxes_xyxy[~image.crowd] for image in kept]
        regions = encoder.encode_regions(photos, objects) if encodes else [None] * len(kept)
        phrases = [[expression.text for expression in by_image[image.image_id]] for image in kept]
        boxes = ask_boxes(predictor, photos, phrases) if boxes_too else [None] * len(kept)
        for image, candidates, embeds, found in zip(kept, objects, regions, boxes, strict=True):
            rows = first[image.image_id] + np.arange(len(by_image[image.image_id]))
            referents = np.array([expression.box_xyxy for expression in by_image[image.image_id]])
            if len(candidates) and embeds is not None:
                cosine = np.stack([texts[asked[row].text] for row in rows]) @ embeds.T
                nearest, ranked = cosine.argmax(axis=1), np.sort(cosine, axis=1)
                answers.confidence[rows] = ranked[:, -1] - ranked[:, max(-2, -ranked.shape[1])]
                _note_candidates(answers, rows, image.annotation_ids[~image.crowd], candidates, nearest, referents)
            if found is not None:
                answers.boxes[rows[0] : rows[-1] + 1] = found
                overlap = paired_iou([np.nan_to_num(box.box_xyxy) for box in found], referents)
                answers.box_iou[rows] = np.where([bool(box.failure) for box in found], 0.0, overlap)
    answers.skips[:] = [skipped.get(expression.image_id, "") for expression in asked]
    return answers


def _blank(asked: list[Expression], images: list[AnnotatedImage], skipped: dict[int, str]) -> Referred:
    """Answers to be filled in."""
    count = len(asked)
    return Referred(
        expressions=asked,
        images=images,
        image_ids=np.array([expression.image_id for expression in asked], dtype=np.int64),
        skips=np.full(count, "", dtype="U64"),
        has_candidates=np.zeros(count, dtype=bool),
        chosen=np.full(count, -1, dtype=np.int64),
        chosen_iou=np.zeros(count),
        right_share=np.zeros(count),
        largest_is_right=np.zeros(count, dtype=bool),
        boxes=[None] * count,
        box_iou=np.zeros(count),
        confidence=np.zeros(count),
        photos_skipped=skipped,
    )


def _note_candidates(
    answers: Referred,
    rows: NDArray[np.int64],
    annotation_ids: NDArray[np.int64],
    candidates_xyxy: NDArray[np.float64],
    nearest: NDArray[np.int64],
    referents_xyxy: NDArray[np.float64],
) -> None:
    """Write down what one image's candidates give for its expressions."""
    overlap = iou(referents_xyxy, candidates_xyxy)
    right = overlap >= RIGHT_IOU
    answers.has_candidates[rows] = True
    answers.chosen[rows] = annotation_ids[nearest]
    answers.chosen_iou[rows] = overlap[np.arange(len(rows)), nearest]
    answers.right_share[rows] = right.mean(axis=1)
    answers.largest_is_right[rows] = right[:, area(candidates_xyxy).argmax()]
