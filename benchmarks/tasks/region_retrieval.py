"""`region_retrieval`: from a region to its text and back, recall@1/5/10 (CLOC section 5.2, there on GRIT).

Data: COCO's boxes with their class names, GRIT's phrases (both columns, each a split), and any region shards. The pool
is one region for each different text of each image: the one with the lowest annotation id. Texts repeat across
images, and the paper does not say how it counts that, so both ways are given: `merged` counts any entry with the same
text as right (candidates of region-to-text are the different texts), `plain` only the pair itself, repeated texts
sharing their place in the ranking. Letters: N pool entries, U different texts, E shared embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_roots import FoundSet, list_coco_files
from benchmarks.metrics.intervals import Tally
from benchmarks.metrics.recall import find_merged_chance, score_merged, score_single
from benchmarks.predictors.contract import Predictor
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import explain_none, limit_images, open_batches
from benchmarks.tasks.region_texts import (
    TextedImage,
    TextedSet,
    convert_annotated,
    find_grit_files,
    read_grit_texts,
    read_region_shards,
)
from cloc.data.shards.card import CARD
from cloc.formats.coco import read_coco
from cloc.formats.grit import PHRASES

KS = (1, 5, 10)
DIRECTIONS = ("region-to-text", "text-to-region")
COUNTINGS = ("merged", "plain")
_BLOCK = 512


@dataclass(frozen=True)
class Pool:
    """What is searched.

    Attributes:
        image_ids, annotation_ids: (N,).
        texts: U different texts.
        text_of: (N,) row of `texts`.
        regions: (N, E) unit norm, and
        embeds: (U, E) of the texts.
    """

    image_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    texts: list[str]
    text_of: NDArray[np.int64]
    regions: NDArray[np.float32]
    embeds: NDArray[np.float32]


class RegionRetrieval(Task):
    """Recall of regions and texts in both directions, on every set of boxes with texts that is there."""

    name = "region_retrieval"
    needs = (
        "coco/annotations/instances_val2017.json and the photos in coco/val2017/; region_text/grit*/ with GRIT's "
        "*.parquet or *.jsonl and images/KEY.jpg; region_text/NAME/ with region shards (dataset.json, *.tar)"
    )
    layout = "official; region shards: ours"
    runs_by_default = True

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [*(file for file, _ in list_coco_files(roots)), *(root / "region_text" for root in roots)]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = [
            FoundSet("coco", "val", file, partial(_read_coco, file, images))
            for file, images in list_coco_files(roots)
            if file.is_file()
        ]
        for place in self.list_locations(roots)[-len(roots) :]:
            for folder in sorted(part for part in place.iterdir() if part.is_dir()) if place.is_dir() else ():
                if folder.name.startswith("grit") and find_grit_files(folder):
                    found += [FoundSet(folder.name, s, folder, partial(read_grit_texts, folder, s)) for s in PHRASES]
                elif (folder / CARD).is_file() and any(folder.glob("*.tar")):
                    found.append(FoundSet(folder.name, "all", folder, partial(read_region_shards, folder)))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`. Two regions carry one text, a third another one."""
        texts = np.eye(2, dtype=np.float32)
        regions = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
        pool = Pool(np.arange(3), np.arange(3), ["a", "b"], np.array([0, 0, 1]), regions, texts)
        expect("region_retrieval: merged", score_recalls(pool, "region-to-text", "merged", 1).tolist(), [1.0, 1.0, 1.0])
        expect("region_retrieval: plain", score_recalls(pool, "region-to-text", "plain", 1).tolist(), [0.5, 0.5, 1.0])
        expect("region_retrieval: back", score_recalls(pool, "text-to-region", "merged", 1).tolist(), [1.0, 1.0, 1.0])
        expect("region_retrieval: chance", find_chance(pool, "text-to-region", "plain", 1), 1 / 3)

    def run(self, predictor: Predictor, dataset: TextedSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        images, photos_skipped = limit_images(dataset.images, options), dict[int, str]()
        pool, skipped = build_pool(predictor, dataset, images, options, photos_skipped)
        scores, lines = [], []
        if len(pool.regions):
            lines = [
                {"image_id": int(image), "annotation_id": int(annotation), "text": pool.texts[text]}
                for image, annotation, text in zip(pool.image_ids, pool.annotation_ids, pool.text_of, strict=True)
            ]
        for direction in DIRECTIONS:
            for counting in COUNTINGS:
                protocol = add_limit(f"one-per-text-and-image/{counting}/{direction}", options)
                for k in KS:
                    metric = f"recall@{k}"
                    if not len(pool.regions):
                        why = explain_none(photos_skipped, images)
                        scores.append(Score(found.split, protocol, metric, skipped=skipped, reason=why))
                        continue
                    hits = score_recalls(pool, direction, counting, k)
                    for line, hit in zip(lines, hits, strict=True):
                        line[f"{direction}/{counting}/{metric}"] = round(float(hit), 5)
                    guess = find_chance(pool, direction, counting, k)
                    tally, always = Tally.of(pool.image_ids, hits), find_constant(pool, counting, k)
                    facts: dict[str, Any] = {"skipped": skipped, "chance": guess, "constant": always}
                    scores.append(Score(found.split, protocol, metric, tally, **facts))
        return TaskOutput(name_dataset(found.dataset, dataset.rendered), dataset.rendered, scores, lines)


def _read_coco(file: Path, images: Path) -> TextedSet:
    return convert_annotated(read_coco(file, images))


def choose_regions(image: TextedImage) -> list[int]:
    """Rows of an image's boxes that enter the pool: for each text the one of lowest annotation id."""
    first: dict[str, int] = {}
    for row in np.argsort(image.ids, kind="stable").tolist():
        first.setdefault(image.texts[row], row)
    return sorted(first.values())


def build_pool(
    predictor: Predictor,
    dataset: TextedSet,
    images: list[TextedImage],
    options: Options,
    photos_skipped: dict[int, str],
) -> tuple[Pool, Counter[str]]:
    """Encode the pool; what could not enter it is counted by reason."""
    rows = {image.image_id: choose_regions(image) for image in images}
    reasons = dict[int, str]()
    image_ids, annotation_ids, phrases, regions = [], [], [], []
    for some, photos in open_batches(images, _photo_of, options, f"{predictor.name} on {dataset.name}", reasons):
        kept = [images[place] for place in some]
        boxes = [image.pixels(rows[image.image_id], photo) for image, photo in zip(kept, photos, strict=True)]
        regions += predictor.encode_regions(photos, boxes)
        for image in kept:
            for row in rows[image.image_id]:
                image_ids.append(image.image_id)
                annotation_ids.append(int(image.ids[row]))
                phrases.append(image.texts[row])
    photos_skipped.update({images[place].image_id: reason for place, reason in reasons.items()})
    distinct = sorted(set(phrases))
    column = {text: index for index, text in enumerate(distinct)}
    embeds = predictor.encode_texts(distinct)
    pool = Pool(
        image_ids=np.array(image_ids, dtype=np.int64),
        annotation_ids=np.array(annotation_ids, dtype=np.int64),
        texts=distinct,
        text_of=np.array([column[phrase] for phrase in phrases], dtype=np.int64),
        regions=np.concatenate(regions) if regions else embeds,
        embeds=embeds,
    )
    skipped = Counter(dataset.dropped)
    for image in images:
        skipped["crowd"] += image.crowds
        if image.image_id in photos_skipped:
            skipped[photos_skipped[image.image_id]] += len(rows[image.image_id])
    return pool, +skipped


def _photo_of(image: TextedImage) -> Image.Image | str:
    return image.open_photo()


def score_recalls(pool: Pool, direction: str, counting: str, k: int) -> NDArray[np.float64]:
    """(N,) the value of every pool entry as a query, in blocks so that memory stays flat."""
    parts = []
    by_text = pool.embeds[pool.text_of]
    for start in range(0, len(pool.text_of), _BLOCK):
        asked = slice(start, start + _BLOCK)
        own = pool.text_of[asked]
        queries = pool.regions[asked] if direction == "region-to-text" else by_text[asked]
        if counting == "merged" and direction == "region-to-text":
            right = own[:, None] == np.arange(len(pool.texts))[None]
            parts.append(score_merged(queries @ pool.embeds.T, right, k))
        elif counting == "merged":
            parts.append(score_merged(queries @ pool.regions.T, own[:, None] == pool.text_of[None], k))
        elif direction == "region-to-text":
            # One product for each different text, spread out afterwards: equal texts must tie to the last bit.
            similarity = (queries @ pool.embeds.T)[:, pool.text_of]
            parts.append(score_single(similarity, np.arange(start, start + len(own)), k))
        else:
            parts.append(score_single(queries @ pool.regions.T, np.arange(start, start + len(own)), k))
    return np.concatenate(parts)


def find_constant(pool: Pool, counting: str, k: int) -> float:
    """What the same k entries for every query reach at best: with merged texts those of the most frequent texts."""
    if counting == "plain":
        return min(k / len(pool.text_of), 1.0)
    return float(np.sort(np.bincount(pool.text_of))[::-1][:k].sum() / len(pool.text_of))


def find_chance(pool: Pool, direction: str, counting: str, k: int) -> float:
    """Mean over the queries of the chance that k entries drawn at random hold a right one."""
    if counting == "plain":
        return min(k / len(pool.text_of), 1.0)
    if direction == "region-to-text":
        return find_merged_chance(1, len(pool.texts), k)
    occurs = np.bincount(pool.text_of)
    return float(np.mean([find_merged_chance(int(occurs[text]), len(pool.text_of), k) for text in pool.text_of]))
