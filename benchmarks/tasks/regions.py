"""Annotated boxes to the nearest class name: the core of `region_recognition` and, on LVIS files, of `lvis`.

Protocol (CLOC section 5.2): ground-truth boxes, class names through the text tower without a template, the class of
highest cosine among all of the set. Crowds are no example and are counted. Letters: K boxes, C classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.examples import Example, ExampleSet, list_boxes
from benchmarks.metrics.accuracy import find_nearest, score_blind, score_top1
from benchmarks.metrics.intervals import Tally
from benchmarks.predictors.contract import Predictor
from benchmarks.predictors.mllm import RegionMllmPredictor
from benchmarks.tasks.contract import Options, Score, add_limit
from benchmarks.tasks.photos import NO_EXAMPLE, explain_none, iterate_photos, limit_images
from cloc.formats.annotated import AnnotatedImage, AnnotatedSet, Category
from cloc.text import canonical, concept_name

CROWD = "crowd"
TOP = 5
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class RegionAnswers:
    """The answers on one set.

    Attributes:
        categories: (C,) candidates, by ascending id.
        images: those of the set that were asked for.
        image_ids, annotation_ids, classes: (K,) of every box, crowds included; classes are columns of `categories`.
        predicted: (K,) column of the answer, -1 where the box was skipped.
        nearest: (K, TOP) columns of the nearest classes, nearest first, and
        cosine: (K, TOP) their cosines.
        skips: (K,) why a box has no answer, empty text where it has one.
        texts: (K,) answers in words of an MLLM, None of an encoder.
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
    texts: list[str] | None = None

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
            elif self.texts is not None:
                named = self.predicted[row]
                line |= {"answer": self.texts[row], "predicted_category_id": int(ids[named]) if named >= 0 else None}
            else:
                line["predicted_category_ids"] = ids[self.nearest[row]].tolist()
                line["cosines"] = [round(float(value), 5) for value in self.cosine[row]]
            lines.append(line)
        return lines


def make_recognition_examples(found: RegionAnswers) -> ExampleSet:
    """Every answered box; confidence is the lead of the nearest class over the second."""
    rows = np.flatnonzero(found.skips == "")
    lead = found.cosine[rows, 0] - found.cosine[rows, min(1, found.cosine.shape[1] - 1)]
    by_id = {image.image_id: image for image in found.images}

    def show(place: int) -> Example:
        row = rows[place]
        image = by_id[int(found.image_ids[row])]
        box = image.boxes_xyxy[image.annotation_ids == found.annotation_ids[row]]
        truth = found.categories[found.classes[row]].name
        answer = found.texts[row] if found.texts is not None else found.categories[found.predicted[row]].name
        return Example(image.path, "what is in the box?", truth, answer, asked_xyxy=list_boxes(box), phrase=truth)

    right = found.predicted[rows] == found.classes[rows]
    return ExampleSet(found.annotation_ids[rows], right, lead.astype(np.float64), show)


def recognise_in_words(predictor: RegionMllmPredictor, dataset: AnnotatedSet, options: Options) -> RegionAnswers:
    """Ask an MLLM with region tokens what each box of the set is; its answer is the class that it names first."""
    categories = tuple(sorted(dataset.categories.values(), key=lambda category: category.id))
    find = make_class_finder([category.name for category in categories])
    blank = _unanswered(dataset, categories, options)
    first = dict(zip([image.image_id for image in blank.images], _starts(blank.images), strict=True))
    texts, predicted = [""] * len(blank.classes), blank.predicted
    skipped, title = dict[int, str](), f"{predictor.name} on {dataset.name}"
    for kept, photos in iterate_photos(blank.images, options, title, skipped):
        free = [~image.crowd for image in kept]
        boxes = [image.boxes_xyxy[f] for image, f in zip(kept, free, strict=True)]
        answers = predictor.answer_regions(photos, boxes, [predictor.region_question] * len(kept))
        for image, is_free, own in zip(kept, free, answers, strict=True):
            for row, answer in zip(first[image.image_id] + np.flatnonzero(is_free), own, strict=True):
                texts[row], predicted[row] = answer, find(answer)
    return replace(blank, texts=texts, skips=_skips(blank.images, skipped), photos_skipped=skipped)


def make_class_finder(names: Sequence[str]) -> Callable[[str], int]:
    """A function from an answer in words to the place of the class that it names first, -1 where it names none.

    Names are compared as canonical words; where one name begins another (`fire` and `fire hydrant`), the longer counts.
    """
    words = {" ".join(_WORD.findall(canonical(concept_name(name)))): place for place, name in enumerate(names)}
    longest = max((len(name.split()) for name in words), default=0)

    def find(answer: str) -> int:
        answer_words = _WORD.findall(canonical(answer))
        for start in range(len(answer_words)):
            for length in range(min(longest, len(answer_words) - start), 0, -1):
                place = words.get(" ".join(answer_words[start : start + length]))
                if place is not None:
                    return place
        return -1

    return find


def recognise(
    predictor: Predictor, dataset: AnnotatedSet, prompt: Callable[[Category], str], options: Options
) -> RegionAnswers:
    """Ask for the class of every box of the set; one image encoding for all boxes of an image, where it can."""
    categories = tuple(sorted(dataset.categories.values(), key=lambda category: category.id))
    texts = predictor.encode_texts([prompt(category) for category in categories])
    blank = _unanswered(dataset, categories, options)
    images, nearest, cosine, predicted = blank.images, blank.nearest, blank.cosine, blank.predicted
    skipped, top = dict[int, str](), nearest.shape[1]
    first = dict(zip([image.image_id for image in images], _starts(images), strict=True))
    for kept, photos in iterate_photos(images, options, f"{predictor.name} on {dataset.name}", skipped):
        free = [~image.crowd for image in kept]
        embeds = predictor.encode_regions(photos, [i.boxes_xyxy[f] for i, f in zip(kept, free, strict=True)])
        for image, is_free, rows in zip(kept, free, embeds, strict=True):
            at = first[image.image_id] + np.flatnonzero(is_free)
            if len(at):
                similarity = rows @ texts.T
                predicted[at] = find_nearest(similarity)
                nearest[at] = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
                cosine[at] = np.take_along_axis(similarity, nearest[at], axis=1)
    return replace(blank, skips=_skips(images, skipped), photos_skipped=skipped)


def _unanswered(dataset: AnnotatedSet, categories: tuple[Category, ...], options: Options) -> RegionAnswers:
    """Every box that is asked for, without an answer yet."""
    column = {category.id: index for index, category in enumerate(categories)}
    images = limit_images(dataset.images, options)
    total, top = sum(len(image.category_ids) for image in images), min(TOP, len(categories))
    return RegionAnswers(
        categories=categories,
        images=images,
        image_ids=np.repeat([i.image_id for i in images], [len(i.category_ids) for i in images]).astype(np.int64),
        annotation_ids=_joined([image.annotation_ids for image in images]),
        classes=np.array([column[c] for image in images for c in image.category_ids.tolist()], dtype=np.int64),
        predicted=np.full(total, -1, dtype=np.int64),
        nearest=np.full((total, top), -1, dtype=np.int64),
        cosine=np.zeros((total, top), dtype=np.float32),
        skips=_skips(images, {}),
        dropped=Counter(dataset.dropped),
        photos_skipped={},
    )


def _starts(images: list[AnnotatedImage]) -> NDArray[np.int64]:
    """Row of each image's first box."""
    counts = np.array([len(image.category_ids) for image in images], dtype=np.int64)
    return np.cumsum(counts) - counts


def _skips(images: list[AnnotatedImage], skipped: Mapping[int, str]) -> NDArray[np.str_]:
    return np.array([_skip(c, skipped.get(i.image_id)) for i in images for c in i.crowd.tolist()], dtype=np.str_)


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _skip(crowd: bool, photo: str | None) -> str:
    return CROWD if crowd else photo or ""


def score_recognition(
    found: RegionAnswers, groups: Mapping[str, NDArray[np.bool_] | None], protocol: str, options: Options
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
        hits = score_top1(found.predicted[scored], classes)
        top1_name, mean_name = (add_limit(f"{protocol}/{kind}", options) for kind in ("top1", "class-mean"))
        if not len(classes):
            why = explain_none(found.photos_skipped, found.images) if inside.any() else NO_EXAMPLE
            scores.append(Score(split, top1_name, "top1", skipped=skipped, reason=why))
            scores.append(Score(split, mean_name, "class_mean", skipped=skipped, reason=why))
            continue
        images, unseen = found.image_ids[scored], score_blind(classes, len(found.categories))
        plain, by_class = Tally.of(images, hits), Tally.of(images, hits, classes)
        unnamed = int((found.predicted[scored] < 0).sum())
        note = f"answers that name no class, counted as wrong: {unnamed:,} of {len(classes):,}" if unnamed else None
        facts: dict[str, Any] = {"skipped": skipped, "chance": unseen.chance, "reason": note}
        scores.append(Score(split, top1_name, "top1", plain, constant=unseen.constant_top1, **facts))
        scores.append(Score(split, mean_name, "class_mean", by_class, constant=unseen.constant_class_mean, **facts))
    return scores
