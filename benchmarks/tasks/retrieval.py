"""`retrieval`: from a whole image to its captions and back, recall@1/5/10 (CLOC table 2, COCO columns).

`first-5`: at most five captions an image, as published tables count. Captions that occur on several images: `plain`
counts the pair itself (equal texts share their place in the ranking, and count against the query from image to text),
`merged` counts any image with the same caption. On Karpathy's test split the figures are comparable with published
ones; on val2017 as it lies they are not, and the data set's name says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.metrics.intervals import Tally
from benchmarks.metrics.recall import find_merged_chance, score_constant_recalls, score_merged, score_single
from benchmarks.predictors.contract import Predictor
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import open_batches, open_sized
from cloc.formats.coco import read_coco
from cloc.formats.karpathy import Captioned, CaptionedSet, from_annotated, read_karpathy

KS = (1, 5, 10)
CAPTIONS = 5
COUNTINGS = ("plain", "merged")
_BLOCK = 512
KARPATHY = (
    ("coco-karpathy", "coco/annotations/dataset_coco.json", "coco"),
    ("flickr30k-karpathy", "flickr30k/dataset_flickr30k.json", "flickr30k/flickr30k-images"),
)
"""Data set, split file, folder of its photos."""


class Retrieval(Task):
    """Image to text and text to image."""

    name = "retrieval"
    needs = (
        "coco/annotations/captions_val2017.json with instances_val2017.json and coco/val2017/; or Karpathy's "
        "coco/annotations/dataset_coco.json with coco/val2014/, flickr30k/dataset_flickr30k.json with "
        "flickr30k/flickr30k-images/"
    )
    runs_by_default = True

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        files = ["coco/annotations/captions_val2017.json", *(file for _, file, _ in KARPATHY)]
        return [root / file for root in roots for file in files]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = []
        for root in roots:
            folder = root / "coco" / "annotations"
            files = folder / "instances_val2017.json", folder / "captions_val2017.json"
            if all(file.is_file() for file in files):
                found.append(FoundSet("coco", "val2017", files[1], partial(_coco, *files, root / "coco" / "val2017")))
            for name, file, photos in KARPATHY:
                if (root / file).is_file():
                    load = partial(read_karpathy, root / file, root / photos, "test", name)
                    found.append(FoundSet(name, "test", root / file, load))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`. Two images; the second one's caption is nearer to the first."""
        similarity, owner = np.array([[0.9, 0.8], [0.1, 0.2]]), np.array([0, 1])
        expect(
            "retrieval: image to text",
            score_hits(similarity, owner, owner, "image-to-text", "plain", 1).tolist(),
            [1, 1],
        )
        expect(
            "retrieval: text to image",
            score_hits(similarity, owner, owner, "text-to-image", "plain", 1).tolist(),
            [1, 0],
        )

    def run(self, predictor: Predictor, dataset: CaptionedSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        images, skipped = dataset.images[: options.limit], dict[int, str]()
        parts, rows = [predictor.encode_images([])], list[int]()
        for some, photos in open_batches(images, _open, options, f"{predictor.name} on {dataset.name}", skipped):
            parts.append(predictor.encode_images(photos))
            rows += some
        kept = [images[row] for row in rows]
        captions = [text for image in kept for text in image.captions[:CAPTIONS]]
        owner = np.repeat(np.arange(len(kept)), [len(image.captions[:CAPTIONS]) for image in kept])
        reasons = dataset.dropped.copy()
        reasons.update(skipped.values())
        name = name_dataset(dataset.name, dataset.rendered)
        if not kept:
            scores = [
                Score(found.split, "first-5", f"recall@{k}", skipped=reasons, reason="no image opened") for k in KS
            ]
            return TaskOutput(name, dataset.rendered, scores)
        distinct, kind = np.unique(np.array(captions, dtype=np.str_), return_inverse=True)
        vectors = predictor.encode_texts(distinct.tolist())
        similarity = (np.concatenate(parts) @ vectors.T)[:, kind]  # equal texts tie to the last bit
        ids = np.array([image.image_id for image in kept], dtype=np.int64)
        scores = []
        for direction in ("image-to-text", "text-to-image"):
            queries = ids if direction == "image-to-text" else ids[owner]
            for counting in COUNTINGS:
                protocol = add_limit(f"first-5/{counting}/{direction}", options)
                right = find_right(owner, kind, counting)
                always = score_constant_recalls(right if direction == "image-to-text" else right.T, KS)
                for k, constant in zip(KS, always, strict=True):
                    tally = Tally.of(queries, score_hits(similarity, owner, kind, direction, counting, k))
                    guess = find_chance(owner, kind, direction, counting, k)
                    facts: dict[str, Any] = {"skipped": reasons, "chance": guess, "constant": constant}
                    scores.append(Score(found.split, protocol, f"recall@{k}", tally, **facts))
        return TaskOutput(name, dataset.rendered, scores, _lines(kept, captions, owner, similarity))


def find_right(owner: NDArray[np.int64], kind: NDArray[np.int64], counting: str) -> NDArray[np.bool_]:
    """(I, T) whether caption t counts as one of image i.

    Args:
        owner: (T,) image of each caption.
        kind: (T,) equal for equal texts.
        counting: `plain` or `merged`.
    """
    right = owner[None] == np.arange(owner.max() + 1)[:, None]
    if counting == "plain":
        return right
    has = np.zeros((len(right), kind.max() + 1), dtype=bool)
    has[owner, kind] = True
    return has[:, kind]


def score_hits(
    similarity: NDArray, owner: NDArray[np.int64], kind: NDArray[np.int64], direction: str, counting: str, k: int
) -> NDArray[np.float64]:
    """Value of every query: of I images, or of T captions.

    Args:
        similarity: (I, T).
        owner: (T,) image of each caption.
        kind: (T,) equal for equal texts.
        direction: `image-to-text` or `text-to-image`.
        counting: `plain` or `merged`.
        k: how many entries are looked at.
    """
    right = find_right(owner, kind, counting)
    if direction == "text-to-image":
        similarity, right = similarity.T, right.T
    parts = []
    for start in range(0, len(similarity), _BLOCK):
        part = slice(start, start + _BLOCK)
        if counting == "plain" and direction == "text-to-image":
            parts.append(score_single(similarity[part], owner[part], k))
        else:
            parts.append(score_merged(similarity[part], right[part], k))
    return np.concatenate(parts)


def find_chance(owner: NDArray[np.int64], kind: NDArray[np.int64], direction: str, counting: str, k: int) -> float:
    """Mean over the queries of the chance that k entries drawn at random hold a right one."""
    right = find_right(owner, kind, counting)
    right = right if direction == "image-to-text" else right.T
    counts, times = np.unique(right.sum(axis=1), return_counts=True)
    chances = [find_merged_chance(int(count), right.shape[1], k) for count in counts]
    return float(np.average(chances, weights=times))


def _open(image: Captioned) -> Image.Image | str:
    return open_sized(image.path, image.size)


def _coco(instances: Path, captions: Path, photos: Path) -> CaptionedSet:
    return from_annotated(read_coco(instances, photos, captions, name="coco-val2017"))


def _lines(kept: Sequence[Captioned], captions: list[str], owner: NDArray, similarity: NDArray) -> list[dict]:
    """One JSON object an image: its nearest captions, and one a caption: its nearest images."""
    near = np.argsort(-similarity, axis=1, kind="stable")[:, : KS[-1]]
    back = np.argsort(-similarity, axis=0, kind="stable")[: KS[-1]].T
    lines = [
        {"image_id": image.image_id, "nearest_captions": [captions[t] for t in row]}
        for image, row in zip(kept, near, strict=True)
    ]
    lines += [
        {"caption": text, "image_id": kept[own].image_id, "nearest_image_ids": [kept[i].image_id for i in row]}
        for text, own, row in zip(captions, owner, back, strict=True)
    ]
    return lines
