"""Grounding files: one expression a line with its box, one answer a line with the predicted box; xyxy pixels.

A folder in the refer toolkit's layout (`refs(*).p` and `instances.json`) gives the same lines.

Letter: X expressions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import EMPTY
from benchmarks.scoring.frames import XYXY, check_beside_truth, check_frame, choose_evenly, note_beyond
from benchmarks.scoring.reading import list_entries, read_boxes, read_integers, read_numbers, require_different
from cloc.formats.refcoco import read_refcoco, refcoco_splits

TRUTH, ANSWERS = "annotations", "predictions"
ANSWER = "pred_bbox_xyxy"


@dataclass(frozen=True, eq=False)
class Grounding:
    """Expressions and their answers, in the order of the annotation file.

    Attributes:
        image_ids: (X,) image of each expression.
        references_xyxy: (X, 4) annotated boxes.
        answers_xyxy: (X, 4) predicted boxes, NaN where there is none: it counts as wrong.
        sizes: (X, 2) width and height of the images, None where the file does not tell them all.
        split: the file's one split, else `all`.
        rendered: whether the file says that its images are rendered.
        skipped: answers that belong to no expression.
        notes: what else is to be said, counted by reason; these stay in the figures.
    """

    image_ids: NDArray[np.int64]
    references_xyxy: NDArray[np.float64]
    answers_xyxy: NDArray[np.float64]
    sizes: NDArray[np.float64] | None
    split: str
    rendered: bool
    skipped: Counter[str]
    notes: Counter[str]


def read_grounding(annotations: Any, predictions: Any) -> Grounding:
    """Join expressions (image_id, sent_id, bbox) and answers (image_id, sent_id, pred_bbox_xyxy) by sent_id.

    An answer without a box, and an expression without an answer, count as wrong.

    Raises:
        ValueError: a field is missing or wrong, a sent_id occurs twice, an answer names another image than the
            annotation, boxes are in another frame than corners in pixels, or no answer belongs to any expression.
    """
    truth = list_entries(annotations, TRUTH)
    if not truth:
        raise ValueError(f"{TRUTH}: expected one expression a line, got an empty file")
    answers = list_entries(predictions, ANSWERS) if predictions else []
    sentences, asked = read_integers(truth, "sent_id", TRUTH), read_integers(answers, "sent_id", ANSWERS)
    require_different(sentences, "sent_id", TRUTH)
    require_different(asked, "sent_id", ANSWERS)
    image_ids, answered_images = read_integers(truth, "image_id", TRUTH), read_integers(answers, "image_id", ANSWERS)
    place = {sentence: row for row, sentence in enumerate(sentences.tolist())}
    rows = np.array([place.get(sentence, -1) for sentence in asked.tolist()], dtype=np.int64)
    known = rows >= 0
    if len(rows) and not known.any():
        raise ValueError(
            f"{ANSWERS}: none of {len(rows):,} sent_id is in the annotation file (first: {asked[0]}); is it the file "
            "of another data set or split?"
        )
    other = np.flatnonzero(known & (image_ids[rows] != answered_images))
    if other.size:
        raise ValueError(
            f"{ANSWERS}[{other[0]}]: expected image_id {image_ids[rows[other[0]]]} for sent_id {asked[other[0]]}, "
            f"got {answered_images[other[0]]}; are these the answers to another data set?"
        )
    with_box = np.array([answer.get(ANSWER) is not None for answer in answers], dtype=bool)
    found = np.full((len(answers), 4), np.nan)
    found[with_box] = read_boxes([answer for answer in answers if answer.get(ANSWER) is not None], ANSWER, ANSWERS)
    references, sizes = read_boxes(truth, "bbox", TRUTH), _sizes(truth)
    sides = np.full((len(truth), 2), np.inf) if sizes is None else sizes
    check_frame(references, sides, XYXY, TRUTH)
    boxed = np.flatnonzero(known & with_box)
    check_frame(found[boxed], sides[rows[boxed]], XYXY, ANSWERS)
    some = choose_evenly(boxed)
    notes = check_beside_truth(found[some], references[rows[some]], np.arange(len(some)), sides[rows[some]], "xyxy")
    notes += note_beyond(references, sides, XYXY, TRUTH) + note_beyond(found[boxed], sides[rows[boxed]], XYXY, ANSWERS)
    backwards = int((found[boxed][:, 2:] < found[boxed][:, :2]).any(axis=1).sum())
    answers_xyxy = np.full((len(truth), 4), np.nan)
    answers_xyxy[rows[known]] = found[known]
    splits = {str(entry["split"]) for entry in truth if "split" in entry}
    return Grounding(
        image_ids=image_ids,
        references_xyxy=references,
        answers_xyxy=answers_xyxy,
        sizes=sizes,
        split=splits.pop() if len(splits) == 1 else "all",
        rendered=all(entry.get("rendered") is True for entry in truth),
        skipped=Counter(unknown_sent_id=int((~known).sum())),
        notes=Counter(
            {
                "expressions without an answer, counted as wrong": len(truth) - int(known.sum()),
                "answers without a box, counted as wrong": int((known & ~with_box).sum()),
                "boxes that end before they start, counted as wrong": backwards,
                EMPTY: int((references[:, 2:] <= references[:, :2]).any(axis=1).sum()),
            }
        )
        + notes,
    )


def _sizes(truth: list[dict[str, Any]]) -> NDArray[np.float64] | None:
    if any(entry.get(side) is None for entry in truth for side in ("width", "height")):
        return None
    sides = np.stack([read_numbers(truth, side, TRUTH) for side in ("width", "height")], axis=1)
    return sides if (sides > 0).all() else None


def find_refer_folder(path: Path) -> Path | None:
    """The folder meant by a path: itself, or that of a refs file in it; None where it is no such layout."""
    folder = path.parent if path.name.startswith("refs(") else path
    return folder if folder.is_dir() and (folder / "instances.json").is_file() else None


def read_refer_lines(folder: Path, split: str | None) -> list[dict[str, Any]]:
    """The expressions of one split as lines of image_id, sent_id, bbox (xyxy pixels), split.

    Args:
        folder: such as refcoco/refcoco+.
        split: which; None where the folder holds but one beside train.

    Raises:
        ValueError: there is no such split, or several and none was named.
    """
    there = [name for name in refcoco_splits(folder.parent, folder.name) if name != "train"]
    if split is None and len(there) == 1:
        split = there[0]
    if split not in there:
        raise ValueError(f"--split: {folder} holds {', '.join(there) or 'no split'}; got {split}; name one of them")
    dataset = read_refcoco(folder.parent, folder.name, split)
    rendered = {"rendered": True} if dataset.rendered else {}
    return [
        {"image_id": one.image_id, "sent_id": one.sent_id, "bbox": list(one.box_xyxy), "split": one.split}
        | {"width": dataset.images[one.image_id].width, "height": dataset.images[one.image_id].height, **rendered}
        for one in dataset.expressions
    ]
