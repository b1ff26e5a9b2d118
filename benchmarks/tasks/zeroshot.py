"""`zeroshot`: which class is on the whole image? What region training costs on plain image tasks (CLOC table 2).

A class is the mean of its name in all templates (each unit norm), brought to unit norm again (Radford et al. 2021).
Protocol: where names and templates came from, and top-1, top-5 or the mean over classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Example, ExampleSet
from benchmarks.metrics.accuracy import score_blind
from benchmarks.metrics.intervals import Tally
from benchmarks.predictors.contract import Embeddings, Predictor
from benchmarks.tasks.class_images import ClassImage, ClassSet, find_class_splits, read_classes
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import UNREADABLE, open_batches
from cloc.images import decode

TOP = 5
_CLASSES_AT_ONCE = 64


class ZeroShot(Task):
    """Every set under `zeroshot/`, every split but `train`."""

    name = "zeroshot"
    needs = "zeroshot/NAME/SPLIT/CLASS/*.jpg, or CLIP_benchmark's shards zeroshot/NAME/SPLIT/*.tar with classnames.txt"
    runs_by_default = True
    layout = "of torchvision's ImageFolder and of CLIP_benchmark's shards"

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "zeroshot" for root in roots]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = []
        for place, root in zip(self.list_locations(roots), roots, strict=True):
            for folder in sorted(part for part in place.iterdir() if part.is_dir()) if place.is_dir() else ():
                for split in find_class_splits(folder):
                    load = partial(read_classes, folder, split, root / "categories")
                    found.append(FoundSet(folder.name, split, folder / split, load))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`. Three images of two classes, the last one wrong."""
        order = rank_classes(np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.1]]), 1)
        hits = (order[:, 0] == np.array([0, 1, 1])).astype(float)
        expect("zeroshot: top1", Tally.of([1, 2, 3], hits).value(), 2 / 3)
        expect("zeroshot: class_mean", Tally.of([1, 2, 3], hits, [0, 1, 1]).value(), 0.75)

    def run(self, predictor: Predictor, dataset: ClassSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        classes = encode_classes(predictor, dataset)
        images, skipped = _limited(dataset.images, options), dict[int, str]()
        best = np.full((len(images), min(TOP, len(classes))), -1, dtype=np.int64)
        lead = np.zeros(len(images))
        for rows, photos in open_batches(images, open_image, options, f"{predictor.name} on {dataset.name}", skipped):
            similarity = predictor.encode_images(photos) @ classes.T
            best[rows] = rank_classes(similarity, best.shape[1])
            two = -np.sort(-similarity, axis=1)[:, : min(2, len(classes))]
            lead[rows] = two[:, 0] - two[:, -1]
        kept = best[:, 0] >= 0
        labels = np.array([image.label for image in images], dtype=np.int64)
        reasons = Counter(dataset.dropped) + Counter(skipped.values())
        scores = _scores(best[kept], labels[kept], np.flatnonzero(kept), dataset, found.split, reasons, options)
        lines = [
            {"image": image.key, "class": image.label}
            | ({"predicted": row.tolist()} if row[0] >= 0 else {"skipped": skipped[place]})
            for place, (image, row) in enumerate(zip(images, best, strict=True))
        ]
        examples = _make_examples(images, dataset.names, best, lead)
        return TaskOutput(name_dataset(dataset.name, dataset.rendered), dataset.rendered, scores, lines, examples)


def encode_classes(predictor: Predictor, dataset: ClassSet) -> Embeddings:
    """(C, E) unit norm, some classes at a time so that templates times classes do not fill the memory."""
    parts = []
    for start in range(0, len(dataset.names), _CLASSES_AT_ONCE):
        names = dataset.names[start : start + _CLASSES_AT_ONCE]
        texts = [template.replace("{c}", name) for name in names for template in dataset.templates]
        vectors = predictor.encode_texts(texts).reshape(len(names), len(dataset.templates), -1).mean(axis=1)
        parts.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
    return np.concatenate(parts)


def rank_classes(similarity: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """(B, count) the nearest classes, nearest first; of equal ones the first."""
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def open_image(image: ClassImage) -> Image.Image | str:
    """The image in RGB, or why it cannot be used."""
    try:
        return decode(image.read())
    except ValueError:
        return UNREADABLE


def _limited(images: Sequence[ClassImage], options: Options) -> Sequence[ClassImage]:
    """All, or so many evenly spaced over the set: the first ones would be of one class."""
    if options.limit is None or options.limit >= len(images):
        return images
    return [images[round(place)] for place in np.linspace(0, len(images) - 1, options.limit)]


def _scores(
    best: NDArray[np.int64],
    labels: NDArray[np.int64],
    ids: NDArray[np.int64],
    dataset: ClassSet,
    split: str,
    skipped: Counter[str],
    options: Options,
) -> list[Score]:
    named = [add_limit(f"{dataset.source}/{kind}", options) for kind in ("top1", "top5", "class-mean")]
    metrics = ("top1", "top5", "class_mean")
    if not len(labels):
        why = "no image could be opened"
        return [Score(split, p, m, skipped=skipped, reason=why) for p, m in zip(named, metrics, strict=True)]
    first, any_of = (best[:, 0] == labels).astype(float), (best == labels[:, None]).any(axis=1).astype(float)
    guess = score_blind(labels, len(dataset.names))
    tallies = (Tally.of(ids, first), Tally.of(ids, any_of), Tally.of(ids, first, labels))
    chances = (guess.chance, min(1.0, TOP * guess.chance), guess.chance)
    most = float(np.sort(np.bincount(labels))[::-1][:TOP].sum() / len(labels))  # always the most frequent classes
    constants = (guess.constant_top1, most, guess.constant_class_mean)
    return [
        Score(split, protocol, metric, tally, skipped=skipped, chance=chance, constant=constant)
        for protocol, metric, tally, chance, constant in zip(named, metrics, tallies, chances, constants, strict=True)
    ]


def _make_examples(images: Sequence[ClassImage], names: Sequence[str], best: NDArray, lead: NDArray) -> ExampleSet:
    """Images that are files of their own; those inside shards are not drawn."""
    rows = np.array([r for r, image in enumerate(images) if image.place is None and best[r, 0] >= 0], dtype=np.int64)
    labels = np.array([images[row].label for row in rows], dtype=np.int64)

    def show(place: int) -> Example:
        image = images[rows[place]]
        return Example(image.path, "what is on the image?", names[image.label], names[best[rows[place], 0]])

    return ExampleSet(rows, best[rows, 0] == labels, lead[rows], show)
