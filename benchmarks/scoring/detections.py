"""COCO and LVIS annotation files and COCO results files as arrays, checked as they are read.

Letters: G annotated boxes, D predicted boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import Detections, DetectionTruth, number_within
from benchmarks.metrics.grounding import answer_iou
from benchmarks.scoring.frames import XYWH, check_beside_truth, check_frame, choose_evenly, note_beyond
from benchmarks.scoring.reading import (
    Entry,
    count_repeated,
    list_entries,
    read_boxes,
    read_flags,
    read_integers,
    read_numbers,
    require_different,
)
from cloc.boxes import xywh_to_xyxy

TRUTH, ANSWERS = "annotations", "predictions"
_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")

_NUMBERED, _COVERING = 2000, 20
"""Surest answers whose numbering is looked at, and how many of them must cover an annotated box."""


def is_lvis(content: dict[str, Any]) -> bool:
    """Whether an annotation file is LVIS's: a category has a frequency, or an image lists absent categories."""
    return any("frequency" in one for one in content["categories"]) or any(
        name in one for one in content["images"] for name in _FEDERATED
    )


def read_truth(content: dict[str, Any]) -> DetectionTruth:
    """The annotations of a file in COCO's or LVIS's layout.

    Raises:
        ValueError: a field is missing or wrong, an id occurs twice, an annotation is of no image or category of the
            file, or an LVIS image does not say which categories are absent or not exhaustive.
    """
    images = list_entries(content["images"], "images")
    categories = list_entries(content["categories"], "categories")
    annotations = list_entries(content["annotations"], "annotations")
    image_ids, category_ids = read_integers(images, "id", "images"), read_integers(categories, "id", "categories")
    for ids, what in ((image_ids, "images"), (category_ids, "categories")):
        if not len(ids):
            raise ValueError(f"{TRUTH}: expected at least one entry in {what}, got none")
        require_different(ids, "id", what)
    frequencies, pairs = _federation(images, categories, is_lvis(content))
    by_image, by_category = np.argsort(image_ids), np.argsort(category_ids)
    sizes = np.stack([read_integers(images, side, "images") for side in ("width", "height")], axis=1)
    image_ids, category_ids = image_ids[by_image], category_ids[by_category]
    owners, boxes_xywh = _known(annotations, "image_id", image_ids), read_boxes(annotations, "bbox", "annotations")
    check_frame(boxes_xywh, sizes[by_image][owners], XYWH, TRUTH)
    return DetectionTruth(
        image_ids=image_ids,
        sizes=sizes[by_image],
        category_ids=category_ids,
        frequencies=frequencies[by_category],
        images=owners,
        categories=_known(annotations, "category_id", category_ids),
        boxes_xywh=boxes_xywh,
        areas=read_numbers(annotations, "area", "annotations"),
        ignored=read_flags(annotations, "ignore"),
        crowd=read_flags(annotations, "iscrowd"),
        negative_pairs=_numbered(pairs[0], image_ids, category_ids),
        open_pairs=_numbered(pairs[1], image_ids, category_ids),
    )


def read_detections(content: Any, truth: DetectionTruth) -> tuple[Detections, Counter[str], Counter[str]]:
    """A COCO results file: a list of image_id, category_id, bbox (xywh pixels) and score, or an iterator of such lists.

    Returns:
        the detections that can be scored, the others counted by reason, and what else is to be said.

    Raises:
        ValueError: a field is missing, NaN or wrong, an id occurs twice, boxes are in another frame, or not one
            detection is of an image and a category of the annotation file.
    """
    parts, ids, count = [], [], 0
    for part in content if isinstance(content, Iterator) else (content,):
        entries = list_entries(part, ANSWERS) if part else []
        ids.append(read_integers([entry for entry in entries if "id" in entry], "id", ANSWERS, count))
        whole = [read_integers(entries, name, ANSWERS, count) for name in ("image_id", "category_id")]
        parts.append(
            (*whole, read_boxes(entries, "bbox", ANSWERS, count), read_numbers(entries, "score", ANSWERS, count))
        )
        count += len(entries)
    require_different(np.concatenate(ids), "id", ANSWERS)
    images, categories, boxes_xywh, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    del parts, ids
    image, there = _found(images, truth.image_ids)
    category, named_there = _found(categories, truth.category_ids)
    skipped = Counter(unknown_image=int((~there).sum()), unknown_category=int((there & ~named_there).sum()))
    notes = Counter(
        {"answers that stand there twice, number for number": count_repeated(image, category, boxes_xywh, scores)}
    )
    kept = there & named_there
    if count and not kept.any():
        raise ValueError(
            f"{ANSWERS}: none of {count:,} is of an image and a category of the annotation file (first: image "
            f"{images[0]}, category {categories[0]}); is it the annotation file of another split or version?"
        )
    _check_xywh(boxes_xywh[kept], truth.sizes[image[kept]])
    found = Detections(image[kept], category[kept], boxes_xywh[kept], scores[kept])
    notes += note_beyond(truth.boxes_xywh, truth.sizes[truth.images], XYWH, TRUTH)
    notes += note_beyond(found.boxes_xywh, truth.sizes[found.images], XYWH, ANSWERS)
    _check_numbering(found, truth)
    return found, skipped, notes + _beside_truth(found, truth)


def _check_xywh(boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
    """Refuse boxes in another frame than x, y, width, height in pixels, and negative sides."""
    check_frame(boxes_xywh, sizes, XYWH, ANSWERS)
    negative = np.flatnonzero((boxes_xywh[:, 2:] < 0).any(axis=1))
    if negative.size:
        raise ValueError(
            f"{ANSWERS}: expected bbox as x, y, width, height, got {boxes_xywh[negative[0]].tolist()} with a negative "
            f"side ({negative.size:,} such); corners (xyxy) must be turned into x0, y0, x1 - x0, y1 - y0"
        )


def _check_numbering(found: Detections, truth: DetectionTruth) -> None:
    """Refuse answers whose category ids count categories from 0 or 1 where the file's ids do not.

    Judged by the surest answers that cover a box of any category: what they say of it, and what it is.
    """
    by_image = np.argsort(truth.images, kind="stable")
    surest = np.argsort(-found.scores, kind="stable")[:_NUMBERED]
    first, end = (np.searchsorted(truth.images[by_image], found.images[surest], side) for side in ("left", "right"))
    groups = np.repeat(np.arange(len(surest)), end - first)
    meant = by_image[first[groups] + number_within(groups)]
    overlap = answer_iou(xywh_to_xyxy(found.boxes_xywh[surest][groups]), xywh_to_xyxy(truth.boxes_xywh[meant]))
    by_answer = np.lexsort((overlap, groups))
    best = by_answer[np.flatnonzero(np.diff(groups[by_answer], append=len(surest)))]  # the last of each answer
    best = best[overlap[best] >= 0.5]
    said, places = found.categories[surest][groups[best]], truth.categories[meant[best]]
    if len(said) < _COVERING:
        return
    ids, given = truth.category_ids[said], float((said == places).mean())
    for start in (0, 1):
        counted = float((ids == places + start).mean())
        if counted >= 0.5 and counted >= 3 * given:
            raise ValueError(
                f"{ANSWERS}: read as places in the list of categories, counted from {start}, the category_ids of the "
                f"surest answers are right in {counted:.0%} of {len(said):,} covered boxes, as ids of the annotation "
                f"file in {given:.0%}; write the file's own ids, categories sorted by id"
            )


def _beside_truth(found: Detections, truth: DetectionTruth) -> Counter[str]:
    """Hold each image's surest answers beside the annotated boxes of their category; see `check_beside_truth`."""
    pairs = found.categories * len(truth.image_ids) + found.images
    by_pair = np.argsort(truth.pairs, kind="stable")
    first, end = (np.searchsorted(truth.pairs[by_pair], pairs, side) for side in ("left", "right"))
    rows = np.flatnonzero(end > first)
    rows = rows[np.lexsort((-found.scores[rows], pairs[rows]))]
    counts = number_within(pairs[rows]) < (end - first)[rows]  # as many answers as there are boxes to be found
    rows = choose_evenly(np.sort(rows[counts]))
    groups = np.repeat(np.arange(len(rows)), (end - first)[rows])
    meant = by_pair[first[rows][groups] + number_within(groups)]
    there = truth.boxes_xywh[meant]
    corners = np.concatenate([there[:, :2], there[:, :2] + there[:, 2:]], axis=1)
    sizes = truth.sizes[truth.images[meant]].astype(np.float64)
    return check_beside_truth(found.boxes_xywh[rows][groups], corners, groups, sizes, "xywh")


def _federation(
    images: list[Entry], categories: list[Entry], lvis: bool
) -> tuple[NDArray[np.str_], list[list[tuple[int, int]]]]:
    """Each category's frequency, and for both of `_FEDERATED` the (image id, category id) pairs."""
    if not lvis:
        return np.full(len(categories), "", dtype="<U1"), [[], []]
    for place, one in enumerate(categories):
        if one.get("frequency") not in ("r", "c", "f"):
            raise ValueError(f"categories[{place}]: expected frequency r, c or f, got {one.get('frequency')!r}")
    ids = read_integers(images, "id", "images").tolist()
    for place, one in enumerate(images):
        for name in _FEDERATED:
            if not isinstance(one.get(name), list):
                raise ValueError(
                    f"images[{place}]: expected the list {name} of an LVIS file, got {one.get(name)!r}; without it "
                    "false detections cannot be told from unannotated ones"
                )
    pairs = [
        [(number, category) for number, one in zip(ids, images, strict=True) for category in _categories(one, name)]
        for name in _FEDERATED
    ]
    return np.array([one["frequency"] for one in categories], dtype="<U1"), pairs


def _categories(image: Entry, name: str) -> list[int]:
    return read_integers([{name: value} for value in image[name]], name, "images").tolist()


def _numbered(
    pairs: list[tuple[int, int]], image_ids: NDArray[np.int64], category_ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pairs as c * I + i; a category that the file does not have cannot be predicted either."""
    given = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    category, known = _found(given[:, 1], category_ids)
    return (category * len(image_ids) + np.searchsorted(image_ids, given[:, 0]))[known]


def _known(annotations: list[Entry], name: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    values = read_integers(annotations, name, "annotations")
    places, there = _found(values, ids)
    if not there.all():
        place = np.flatnonzero(~there)[0]
        raise ValueError(f"annotations[{place}]: expected {name} of this file, got {values[place]}")
    return places


def _found(values: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places in the sorted `ids` (0 where it is not there), and whether it is there."""
    places = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    there = ids[places] == values
    return np.where(there, places, 0), there
