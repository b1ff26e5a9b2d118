"""RefCOCO, RefCOCO+ and RefCOCOg as shards: one sample an image, one region an expression."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.data.convert_photos import fingerprint, read_photo_of_size, refuse_no_folder, write_counted
from cloc.data.formats.annotated import AnnotatedImage
from cloc.data.formats.refcoco import Expression, ReferringSet, read_refcoco
from cloc.data.shards import already_made
from cloc.structures import DataError, Region, Sample

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_refcoco(
    root: Path,
    dataset: str,
    out: Path,
    split: str = "train",
    images: Path | None = None,
    allow_evaluation_split: bool = False,
    shard_size: int = 1000,
    licence: str = "as the annotation file says",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert one split to shards of kind `regions`. A region is the referent's box with one expression as its phrase.

    A referent with three expressions gives three regions with the same box. There is no caption.

    Args:
        root: folder that holds `refcoco/refs(unc).p` with instances.json, or `annotations_only/REC_*.jsonl`.
        dataset: refcoco, refcoco+ or refcocog.
        out: folder to make; one that is there and was made from the same files is left alone.
        split: train, val, testA, testB or test.
        images: folder of the photos; without it `root/images/mscoco/images/train2014`, then `coco/train2014` beside it.
        allow_evaluation_split: convert another split than train.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an evaluation split without permission; an input is missing, no photo is there, or `out` holds
            something else.
    """
    root, out = Path(root), Path(out)
    _refuse_evaluation(dataset, split, allow_evaluation_split)
    if images is not None:
        refuse_no_folder(Path(images))
    found = read_refcoco(root, dataset, split)
    instances = found.file.with_name("instances.json")
    made = {
        "by": "cloc.data.convert refcoco",
        "converter": CONVERTER,
        "expressions": fingerprint(found.file),
        "instances": fingerprint(instances) if found.file.suffix != ".jsonl" else None,
        "name": f"{dataset}-{split}",
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    photos = None if images is None else Path(images)
    return _write(found, photos, out, made, shard_size, licence, progress)


def _write(
    found: ReferringSet,
    images: Path | None,
    out: Path,
    made: dict[str, Any],
    shard_size: int,
    licence: str,
    progress: bool,
) -> dict[str, Any]:
    dropped = Counter(found.dropped)
    card = {
        "name": made["name"],
        "kind": "regions",
        "rendered": found.rendered,
        "licence": licence,
        "made": made,
        "read": {"images": len(found.images), "expressions": len(found.expressions)},
        "dropped": dropped,
    }
    return write_counted(_samples(found, images, dropped, progress), out, card, shard_size, found.file)


def _refuse_evaluation(dataset: str, split: str, allowed: bool) -> None:
    if split != "train" and not allowed:
        raise ValueError(
            f"{dataset} {split} is an evaluation split: an encoder trained on it has seen the benchmark's answers, "
            "and its scores mean nothing. Convert --split train, or give --allow-evaluation-split to have it all the "
            "same (for a look, or for scoring)"
        )


def _samples(found: ReferringSet, images: Path | None, dropped: Counter[str], progress: bool) -> Iterator[Sample]:
    """The samples in the order of the image ids; what is left out is counted into `dropped`."""
    spoken: dict[int, list[Expression]] = defaultdict(list)
    for expression in found.expressions:
        spoken[expression.image_id].append(expression)
    for image_id in tqdm(sorted(spoken), desc="copying photos", unit="image", disable=not progress):
        image = found.images[image_id]
        if images is not None:
            image = replace(image, path=images / image.path.name)
        try:
            yield _sample(image, spoken[image_id], found, dropped)
        except DataError as error:
            dropped[error.reason] += 1
            dropped["region_of_dropped_image"] += len(spoken[image_id])


def _sample(image: AnnotatedImage, expressions: list[Expression], found: ReferringSet, dropped: Counter[str]) -> Sample:
    data, ending = read_photo_of_size(image.path, image.width, image.height)
    regions = []
    for expression in expressions:
        try:
            regions.append(Region(expression.box_xyxy, expression.text, extras=_extras(expression)))
        except DataError as error:
            dropped[error.reason] += 1
    extras = {
        "image_id": image.image_id,
        "source": {"dataset": found.name, "split": found.split, "file_name": image.path.name},
    }
    return Sample(f"{image.image_id:012d}", data, ending, image.width, image.height, "", tuple(regions), extras)


def _extras(expression: Expression) -> dict[str, Any]:
    """What the file tells of an expression beyond box and text; the jsonl layout has no referents."""
    known = {"sent_id": expression.sent_id}
    if expression.annotation_id is not None:
        known |= {"ref_id": expression.ref_id, "annotation_id": expression.annotation_id}
    return known | ({"kind": expression.kind} if expression.kind is not None else {})
