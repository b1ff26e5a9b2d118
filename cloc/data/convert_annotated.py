"""An `AnnotatedSet` (COCO, LVIS) as shards: one sample an image, one region an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.data.convert_photos import read_photo_of_size, write_counted
from cloc.data.formats.annotated import AnnotatedImage, AnnotatedSet, Category
from cloc.structures import DataError, Region, Sample


def write_annotated(
    annotated: AnnotatedSet,
    folders: str,
    out: Path,
    made: dict[str, Any],
    kind: str = "regions",
    shard_size: int = 1000,
    licence: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Write an annotated set as shards. Crowd boxes stand for no single object: left out and counted as `crowd`.

    Args:
        annotated: the set; the phrase of a region is its category's name (LVIS: blanks for its underscores).
        folders: where the photos were looked for, for the message.
        out: folder to make.
        made: whatever decides the content, for the card.
        kind: `regions`; or `detection` (LVIS), which also keeps the categories that were checked to be absent, and
            those of which some instances carry no box.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Raises:
        ValueError: no photo is there, or `out` holds something else.
    """
    _refuse_no_photos(annotated, folders)
    dropped = Counter(annotated.dropped)
    card = {
        "name": annotated.name,
        "kind": kind,
        "rendered": annotated.rendered,
        "licence": licence,
        "made": made,
        "read": _read_counts(annotated),
        "categories": [_category(category) for category in annotated.categories.values()],
        "dropped": dropped,
    }
    samples = _samples(annotated, kind, dropped, progress)
    return write_counted(samples, out, card, shard_size, annotated.file)


def _refuse_no_photos(annotated: AnnotatedSet, folders: str) -> None:
    if not any(image.path.is_file() for image in annotated.images):
        first = f" (first: {annotated.images[0].path.name})" if annotated.images else ""
        count = len(annotated.images)
        raise ValueError(
            f"{folders}: expected the photos of {annotated.file.name}, found none of its {count}{first}; check --images"
        )


def _read_counts(annotated: AnnotatedSet) -> dict[str, int]:
    """Images, boxes and captions in the annotation files, before anything about the photos is known."""
    return {
        "images": len(annotated.images),
        "boxes": sum(len(image.crowd) for image in annotated.images),
        "captions": sum(len(image.captions) for image in annotated.images),
    }


def _category(category: Category) -> dict[str, Any]:
    return {
        "id": category.id,
        "name": category.name,
        "definition": category.definition,
        "frequency": category.frequency,
        "caption_only": category.caption_only,
    }


def _samples(annotated: AnnotatedSet, kind: str, dropped: Counter[str], progress: bool) -> Iterator[Sample]:
    """The samples in the order of the image ids; what is left out is counted into `dropped`."""
    images = sorted(annotated.images, key=lambda image: image.image_id)
    for image in tqdm(images, desc="copying photos", unit="image", disable=not progress):
        dropped["crowd"] += int(image.crowd.sum())
        try:
            data, ending = read_photo_of_size(image.path, image.width, image.height)
        except DataError as error:
            dropped[error.reason] += 1
            dropped["region_of_dropped_image"] += int((~image.crowd).sum())
            continue
        yield _sample(image, data, ending, annotated, kind)


def _sample(image: AnnotatedImage, data: bytes, ending: str, annotated: AnnotatedSet, kind: str) -> Sample:
    kept = (~image.crowd).nonzero()[0].tolist()
    names = {row: annotated.categories[int(image.category_ids[row])].name for row in kept}
    if kind == "detection":
        names = {row: name.replace("_", " ") for row, name in names.items()}
    regions = tuple(
        Region(
            tuple(image.boxes_xyxy[row].tolist()),
            names[row],
            extras={"category_id": int(image.category_ids[row]), "annotation_id": int(image.annotation_ids[row])},
        )
        for row in kept
    )
    extras: dict[str, Any] = {"image_id": image.image_id, "captions": list(image.captions)}
    if kind == "detection":
        extras["neg_category_ids"] = sorted(image.neg_category_ids)
        extras["not_exhaustive_category_ids"] = sorted(image.not_exhaustive_category_ids)
    extras["source"] = {"dataset": annotated.name, "file_name": image.path.name}
    caption = image.captions[0] if image.captions else ""
    return Sample(f"{image.image_id:012d}", data, ending, image.width, image.height, caption, regions, extras)
