"""Annotated boxes to the nearest class name: the core of `region_recognition` and, on LVIS files, of `lvis`.

Protocol (CLOC section 5.2): ground-truth boxes, class names through the text tower without a template, the class of
highest cosine among all of the set. Crowds are no example and are counted. Letters: K boxes, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gallery import Gallery, Shown, boxes_of
from benchmarks.metrics.accuracy import blind, top1, top1_hits
from benchmarks.metrics.tally import Tally
from benchmarks.predictors.contract import Predictor
from benchmarks.tasks.contract import Options, Score, with_limit
from benchmarks.tasks.photos import NO_EXAMPLE, limited, photo_batches, why_none
from cloc.data.formats.annotated import AnnotatedImage, AnnotatedSet, Category

CROWD = "crowd"
TOP = 5


@dataclass(frozen=True)
class Recognised:
    """The answers on one set.

    Attributes:
        categories: (C,) candidates, by ascending id.
        images: those of the set that were asked for.
        image_ids, annotation_ids, classes: (K,) of every box, crowds included; classes are columns of `categories`.
        predicted: (K,) column of the answer, -1 where the box was skipped.
        nearest: (K, TOP) columns of the nearest classes, nearest first, and
        cosine: (K, TOP) their cosines.
        skips: (K,) why a box has no answer, empty text where it has one.
        dropped: annotations that the reader left out, by reason.
        photos_skipped: reason by image id.
    """

    categories: tuple[Category, ...]
    images: list[AnnotatedImage]
    image_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    classes: NDArray[np.int64]
    predicted: NDArray[np.int64]
    nearest: NDArray[np.int64]
    cosine: NDArray[np.float32]
    skips: NDArray[np.str_]
    dropped: Counter[str]
    photos_skipped: Mapping[int, str]

    def lines(self) -> list[dict[str, Any]]:
        """One JSON object a box, skipped ones with their reason."""
        ids = np.array([category.id for category in self.categories])
        lines = []
        for row in range(len(self.classes)):
            line: dict[str, Any] = {
                "image_id": int(self.image_ids[row]),
                "annotation_id": int(self.annotation_ids[row]),
                "category_id": int(ids[self.classes[row]]),
            }
            if self.skips[row]:
                line["skipped"] = str(self.skips[row])
            else:
                line["predicted_category_ids"] = ids[self.nearest[row]].tolist()
                line["cosines"] = [round(float(value), 5) for value in self.cosine[row]]
            lines.append(line)
        return lines


def recognition_gallery(found: Recognised) -> Gallery:
    """Every answered box; sureness is the lead of the nearest class over the second."""
    rows = np.flatnonzero(found.skips == "")
    lead = found.cosine[rows, 0] - found.cosine[rows, min(1, found.cosine.shape[1] - 1)]
    by_id = {image.image_id: image for image in found.images}

    def show(place: int) -> Shown:
        row = rows[place]
        image = by_id[int(found.image_ids[row])]
        box = image.boxes_xyxy[image.annotation_ids == found.annotation_ids[row]]
        truth, answer = (found.categories[kind].name for kind in (found.classes[row], found.predicted[row]))
        return Shown(image.path, "what is in the box?", truth, answer, asked_xyxy=boxes_of(box), phrase=truth)

    right = found.predicted[rows] == found.classes[rows]
    return Gallery(found.annotation_ids[rows], right, lead.astype(np.float64), show)


def recognise(
    predictor: Predictor, dataset: AnnotatedSet, prompt: Callable[[Category], str], options: Options
) -> Recognised:
    """Ask for the class of every box of the set; one image encoding for all boxes of an image, where it can."""
    categories = tuple(sorted(dataset.categories.values(), key=lambda category: category.id))
    column = {category.id: index for index, category in enumerate(categories)}
    texts = predictor.encode_texts([prompt(category) for category in categories])
    images = limited(dataset.images, options)
    skipped: dict[int, str] = {}
    counts = [len(image.category_ids) for image in images]
    first = dict(zip([image.image_id for image in images], np.cumsum(counts) - counts, strict=True))
    total, top = sum(counts), min(TOP, len(categories))
    nearest, cosine = np.full((total, top), -1, dtype=np.int64), np.zeros((total, top), dtype=np.float32)
    predicted = np.full(total, -1, dtype=np.int64)
    for kept, photos in photo_batches(images, options, f"{predictor.name} on {dataset.name}", skipped):
        free = [~image.crowd for image in kept]
        embeds = predictor.encode_regions(photos, [i.boxes_xyxy[f] for i, f in zip(kept, free, strict=True)])
        for image, is_free, rows in zip(kept, free, embeds, strict=True):
            at = first[image.image_id] + np.flatnonzero(is_free)
            if len(at):
                similarity = rows @ texts.T
                predicted[at] = top1(similarity)
                nearest[at] = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
                cosine[at] = np.take_along_axis(similarity, nearest[at], axis=1)
    return Recognised(
        categories=categories,
        images=images,
        image_ids=np.repeat([i.image_id for i in images], [len(i.category_ids) for i in images]).astype(np.int64),
        annotation_ids=_joined([image.annotation_ids for image in images]),
        classes=np.array([column[c] for image in images for c in image.category_ids.tolist()], dtype=np.int64),
        predicted=predicted,
        nearest=nearest,
        cosine=cosine,
        skips=np.array([_skip(c, skipped.get(i.image_id)) for i in images for c in i.crowd.tolist()], dtype=np.str_),
        dropped=Counter(dataset.dropped),
        photos_skipped=skipped,
    )


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _skip(crowd: bool, photo: str | None) -> str:
    return CROWD if crowd else photo or ""


def recognition_scores(
    found: Recognised, groups: Mapping[str, NDArray[np.bool_] | None], protocol: str, options: Options
) -> list[Score]:
    """Top-1 and class mean of each group of boxes.

    Args:
        found: the answers.
        groups: split name to a (C,) mask of its categories; None means all, and also counts what the reader dropped.
        protocol: protocol id; the metric's kind is put behind it.
        options: for the limit.
    """
    scores = []
    for split, chosen in groups.items():
        inside = np.ones(len(found.classes), dtype=bool) if chosen is None else chosen[found.classes]
        scored = inside & (found.skips == "")
        skipped = Counter(found.skips[inside & ~scored].tolist())
        if chosen is None:
            skipped.update(found.dropped)
        classes = found.classes[scored]
        hits = top1_hits(found.predicted[scored], classes)
        top1_name, mean_name = (with_limit(f"{protocol}/{kind}", options) for kind in ("top1", "class-mean"))
        if not len(classes):
            why = why_none(found.photos_skipped, found.images) if inside.any() else NO_EXAMPLE
            scores.append(Score(split, top1_name, "top1", skipped=skipped, reason=why))
            scores.append(Score(split, mean_name, "class_mean", skipped=skipped, reason=why))
            continue
        images, unseen = found.image_ids[scored], blind(classes, len(found.categories))
        plain, by_class = Tally.of(images, hits), Tally.of(images, hits, classes)
        facts = {"skipped": skipped, "chance": unseen.chance}
        scores.append(Score(split, top1_name, "top1", plain, constant=unseen.constant_top1, **facts))
        scores.append(Score(split, mean_name, "class_mean", by_class, constant=unseen.constant_class_mean, **facts))
    return scores
