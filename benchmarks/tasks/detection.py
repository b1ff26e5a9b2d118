"""Names of a set to boxes on its images, and the figures of the answers: what `lvis`, `coco` and `odinw` share.

A detector is asked in the form that it was trained to read, `name` or `name+definition` (of its training for a name
that it knows, else the set's, else that of the name's head), lower case, underscores as blanks; the form is the
protocol's last word but for limits. LVIS's protocols that take any number
of boxes an image name how many the detector was asked for, an image and (of ours) a level before suppression. Every
image that could be opened counts; one that could not is left out of annotations and answers alike and counted by its
reason. Answers are rounded as they are written to the COCO results file (boxes to a hundredth of a pixel, scores to a
millionth), so that the file alone gives the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.examples import Example, ExampleSet, list_boxes
from benchmarks.metrics import coco_ap, lvis_ap
from benchmarks.metrics.ap_resamples import ApTally, make_ap_tallies
from benchmarks.metrics.detection import EMPTY, Detections, DetectionTruth
from benchmarks.metrics.proposals import METRICS as RECALLS
from benchmarks.metrics.proposals import (
    NO_CHANCE,
    make_constant_detections,
    score_agnostic_recall,
    score_constant_recall,
)
from benchmarks.metrics.proposals import PROTOCOL as AGNOSTIC
from benchmarks.predictors.detector import A_LEVEL, DEFINED, NAME, DetectorPredictor
from benchmarks.scoring.detections import read_truth
from benchmarks.tasks.coco_results import CocoResults, join_found, round_found
from benchmarks.tasks.contract import Options, Score, add_limit, expect
from benchmarks.tasks.photos import iterate_photos, limit_images
from cloc.boxes import iou, xywh_to_xyxy
from cloc.files import read_json
from cloc.formats.annotated import AnnotatedImage, AnnotatedSet, Category
from cloc.formats.numbers import parse_four, parse_whole
from cloc.text import concept_name, concept_sentence

Groups = Mapping[str, NDArray[np.bool_]]
_SHOWN_SCORE = 0.0


@dataclass(frozen=True, eq=False)
class Detected:
    """The answers on one set.

    Attributes:
        images: those of the set that were asked for and could be opened.
        categories: by ascending id; the order of what was asked.
        form: in which they were asked.
        truth: annotations of those images.
        detections: the answers; `results` are they as COCO writes them.
        skipped: images left out, by reason.
    """

    images: list[AnnotatedImage]
    categories: tuple[Category, ...]
    form: str
    truth: DetectionTruth
    detections: Detections
    skipped: Counter[str]

    @property
    def results(self) -> CocoResults:
        """For the file of answers."""
        return CocoResults(self.detections, self.truth)


def detect_all(predictor: DetectorPredictor, dataset: AnnotatedSet, options: Options) -> Detected:
    """Ask for all categories of the set on each of its images.

    Raises:
        ValueError: the set's file cannot be scored, which is said before anything is asked.
    """
    categories = tuple(sorted(dataset.categories.values(), key=lambda category: category.id))
    ids, definitions = [category.id for category in categories], choose_definitions(predictor, categories)
    form = DEFINED if any(definitions) else NAME
    names = [concept_sentence(one.name, text) for one, text in zip(categories, definitions, strict=True)]
    images, skipped = limit_images(dataset.images, options), dict[int, str]()
    truth = read_truth_of(dataset, images)
    parts, opened = [], []
    for kept, photos in iterate_photos(images, options, f"{predictor.name} on {dataset.name}", skipped):
        for image, found in zip(kept, predictor.detect(photos, names, options.boxes_an_image), strict=True):
            parts.append(round_found(found))
            opened.append(image)
    truth = truth if len(opened) == len(images) else read_truth_of(dataset, opened)
    asked = [image.image_id for image in opened]
    detections = join_found(asked, parts, ids, truth) if truth is not None else None
    # Without an image there is neither truth nor detections, and callers ask for the images first.
    answers = cast(DetectionTruth, truth), cast(Detections, detections)
    return Detected(opened, categories, form, *answers, Counter(skipped.values()))


def read_truth_of(dataset: AnnotatedSet, images: Sequence[AnnotatedImage]) -> DetectionTruth | None:
    """The annotations of these images, None where there is no image; for the errors see `read_truth`."""
    if not images:
        return None
    content = read_json(Path(dataset.file), "an annotation file")
    return read_truth(select_images(content, {image.image_id for image in images}))


def choose_definitions(predictor: DetectorPredictor, categories: Sequence[Category]) -> list[str]:
    """The definition that each category is asked with; empty for a predictor that was trained on bare names, and where
    neither its own dictionary nor the set has one.
    """
    if predictor.form != DEFINED:
        return [""] * len(categories)
    known = getattr(predictor, "dictionary", None)
    if known is None:
        return [one.definition for one in categories]
    trained = known.definitions
    return [
        trained.get(concept_name(one.name)) or one.definition or known.definition(concept_name(one.name))
        for one in categories
    ]


def select_images(content: dict[str, Any], kept: set[int]) -> dict[str, Any]:
    """An annotation file's content with only these images. COCO's files have no `area` in some exports: the box's."""
    annotations = [one for one in content["annotations"] if parse_whole(one.get("image_id")) in kept]
    for one in annotations:
        if one.get("area") is None and (box := parse_four(one.get("bbox"))) is not None:
            one["area"] = box[2] * box[3]
    images = [one for one in content["images"] if parse_whole(one.get("id")) in kept]
    return {**content, "images": images, "annotations": annotations}


def group_categories(detected: Detected, split: str) -> dict[str, NDArray[np.bool_]]:
    """Split name to a mask of its categories: all, and where the file tells, with and without boxes in training."""
    only = np.array([category.caption_only for category in detected.categories], dtype=bool)
    if not only.any():
        return {split: np.ones_like(only)}
    return {f"{split}/all": np.ones_like(only), f"{split}/boxed": ~only, f"{split}/caption-only": only}


def score_lvis_protocols(
    detected: Detected, groups: Groups, options: Options
) -> tuple[list[Score], lvis_ap.LvisCurves]:
    """All three LVIS protocols on each group of categories; and the curves of the first."""
    judge = lvis_ap.LvisJudge(detected.truth, detected.detections)
    curves = {name: judge.curves(name) for name in lvis_ap.PROTOCOLS}
    resamples = {name: curve.resamples() for name, curve in curves.items()}
    blind, scores = lvis_ap.LvisJudge(detected.truth, make_constant_detections(detected.truth)), []
    constants = {name: blind.curves(name) for name in lvis_ap.PROTOCOLS}
    for split, chosen in groups.items():
        for protocol, curve in curves.items():
            figures = curve.figures(chosen)
            tallies = make_ap_tallies(figures, resamples[protocol], chosen, detected.truth.frequencies)
            constant = constants[protocol].figures(chosen)
            scores += _scores(figures, split, protocol, detected, options, tallies, constant)
    return [*scores, *score_agnostic(detected, next(iter(groups)), options)], curves[lvis_ap.AP300]


def score_coco_protocols(detected: Detected, groups: Groups, options: Options) -> list[Score]:
    """COCO's twelve figures on each group of categories."""
    curves = coco_ap.CocoCurves(detected.truth, detected.detections)
    resamples, scores = curves.resamples(), []
    blind = coco_ap.CocoCurves(detected.truth, make_constant_detections(detected.truth))
    for split, chosen in groups.items():
        figures = curves.figures(chosen)
        tallies = make_ap_tallies(figures, resamples, chosen)
        scores += _scores(figures, split, coco_ap.AP100, detected, options, tallies, blind.figures(chosen))
    return [*scores, *score_agnostic(detected, next(iter(groups)), options)]


def score_agnostic(detected: Detected, split: str, options: Options) -> list[Score]:
    """Class-agnostic recall by size."""
    figures, constant = (
        score_agnostic_recall(detected.truth, detected.detections),
        score_constant_recall(detected.truth),
    )
    return _scores(figures, split, AGNOSTIC, detected, options, {}, constant)


def report_nothing(protocols: Mapping[str, Sequence[str]], split: str, detected: Detected) -> list[Score]:
    """A row without value for every figure, where not one image could be opened."""
    reason = f"none of the {detected.skipped.total():,} photos can be used" if detected.skipped else "the set is empty"
    return [
        Score(split, f"{protocol}/{detected.form}", metric, skipped=detected.skipped, reason=reason)
        for protocol, metrics in {**protocols, AGNOSTIC: RECALLS}.items()
        for metric in metrics
    ]


def _scores(
    figures: Mapping[str, float | None],
    split: str,
    protocol: str,
    detected: Detected,
    options: Options,
    tallies: Mapping[str, ApTally],
    constants: Mapping[str, float | None],
) -> list[Score]:
    count, empty = len(detected.images), detected.truth.num_empty
    unlimited = protocol in (lvis_ap.UNLIMITED, lvis_ap.FIXED)
    asked = f"/{options.boxes_an_image}-boxes-an-image" if unlimited else ""
    asked += f"/{options.boxes_a_level}-a-level" if unlimited or options.boxes_a_level != A_LEVEL else ""
    named = add_limit(f"{protocol}/{detected.form}{asked}", options)
    return [
        Score(
            split,
            named,
            metric,
            tallies.get(metric),
            value=value,
            num_examples=count,
            skipped=detected.skipped,
            constant=constants[metric],
            no_constant=NO_CHANCE,
            reason=f"noted: {empty:,} {EMPTY}" if empty else None,
        )
        if value is not None
        else Score(split, named, metric, skipped=detected.skipped, reason="no annotation is of this kind")
        for metric, value in figures.items()
    ]


def make_examples(detected: Detected) -> ExampleSet:
    """Every annotated box: right where the surest box on it (IoU 0.5) carries its name; confidence is that box's score.

    A box that nothing was found on is a mistake of confidence 0.
    """
    keys, right, sure, rows = [], [], [], []
    ids = np.array([category.id for category in detected.categories])
    named = {category.id: category.name for category in detected.categories}
    by_image = _by_image(detected)
    for image in detected.images:
        boxes, labels, scores = by_image[image.image_id]
        overlap = iou(image.boxes_xyxy, boxes) >= 0.5
        for k in np.flatnonzero(~image.crowd):
            best = int(np.argmax(np.where(overlap[k], scores, -1.0))) if overlap[k].any() else -1
            keys.append(int(image.annotation_ids[k]))
            right.append(best >= 0 and ids[labels[best]] == image.category_ids[k])
            sure.append(float(scores[best]) if best >= 0 else _SHOWN_SCORE)
            rows.append((image, int(k), best))

    def show(place: int) -> Example:
        image, k, best = rows[place]
        boxes, labels, scores = by_image[image.image_id]
        truth = named[int(image.category_ids[k])]
        answer = "nothing found here" if best < 0 else f"{named[int(ids[labels[best]])]} {scores[best]:.2f}"
        boxed = list_boxes(boxes[best : best + 1]) if best >= 0 else ()
        question = "is it found, and by its name?"
        return Example(image.path, question, truth, answer, (), list_boxes(image.boxes_xyxy[k]), boxed, truth)

    return ExampleSet(np.array(keys, dtype=np.int64), np.array(right, dtype=bool), np.array(sure), show)


def _by_image(detected: Detected) -> dict[int, tuple[NDArray, NDArray, NDArray]]:
    """(xyxy boxes, labels, scores) of each image."""
    found, ids = detected.detections, detected.truth.image_ids
    order = np.argsort(found.images, kind="stable")
    bounds = np.searchsorted(found.images[order], np.arange(len(ids) + 1))
    boxes = xywh_to_xyxy(found.boxes_xywh)
    parts = [order[start:end] for start, end in pairwise(bounds)]
    return {
        int(image_id): (boxes[part], found.categories[part], found.scores[part])
        for image_id, part in zip(ids, parts, strict=True)
    }


def check_detection(what: str) -> None:
    """Two images with one box each of two categories: found perfectly, not at all, and one of two."""
    boxes = np.array([[10.0, 10.0, 40.0, 40.0], [20.0, 20.0, 50.0, 30.0]])
    rows = np.array([0, 1])
    none = np.zeros(0, dtype=np.int64)
    truth = DetectionTruth(
        image_ids=np.array([1, 2]),
        sizes=np.full((2, 2), 100),
        category_ids=np.array([1, 2]),
        frequencies=np.array(["f", "f"]),
        images=rows,
        categories=rows,
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        ignored=np.zeros(2, dtype=bool),
        crowd=np.zeros(2, dtype=bool),
        negative_pairs=none,
        open_pairs=none,
    )
    perfect = Detections(rows, rows, boxes, np.ones(2))
    wanted = {"perfect answers": (perfect, 1.0), "no answer": (perfect.take(none), 0.0)}
    wanted["one of two"] = (perfect.take(np.array([0])), 0.5)
    for case, (detections, value) in wanted.items():
        figures = coco_ap.CocoCurves(truth, detections).figures(np.ones(2, dtype=bool))
        expect(f"{what}: coco AP of {case}", _rounded(figures["AP"]), value)
        for protocol in lvis_ap.PROTOCOLS:
            ap = lvis_ap.score_lvis(truth, detections, protocol)["AP"]
            expect(f"{what}: {protocol} of {case}", _rounded(ap), value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)
