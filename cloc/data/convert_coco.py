"""COCO's instances and captions as shards: one sample an image, one region an object."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from cloc.data.formats.annotated import AnnotatedImage, AnnotatedSet, Category
from cloc.data.formats.coco import read_coco
from cloc.data.shards import already_made, write_shards
from cloc.structures import DataError, Region, Sample

CONVERTER = 1
"""Raised when equal input gives other shards than before."""

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def _fingerprint(file: Path | None) -> dict[str, str] | None:
    if file is None:
        return None
    if not file.is_file():
        raise ValueError(f"{file}: expected an annotation file, found no file; check the path")
    with file.open("rb") as opened:
        return {"file": file.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def convert_coco(
    images: Path,
    instances: Path,
    out: Path,
    captions: Path | None = None,
    name: str = "coco",
    shard_size: int = 1000,
    licence: str = "as the annotation file says",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert COCO instances (and captions) to shards: one sample an image, one region an object.

    The phrase of a region is its category's name. Crowd boxes stand for no single object: they are left out and counted
    as `crowd`. The caption is the first one; all are kept in `captions`. Images without one get an empty caption.

    Args:
        images: folder of the photos.
        instances: `instances_*.json`.
        out: folder to make; one that is there and was made from the same files is left alone.
        captions: `captions_*.json`.
        name: of the set, for its card.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an input is missing, no photo is there, or `out` holds something else.
    """
    images, instances, out = Path(images), Path(instances), Path(out)
    captions = None if captions is None else Path(captions)
    if not images.is_dir():
        raise ValueError(f"{images}: expected the folder of the photos, found no folder; check --images")
    made = {
        "by": "cloc.data.convert coco",
        "converter": CONVERTER,
        "instances": _fingerprint(instances),
        "captions": _fingerprint(captions),
        "name": name,
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    annotated = read_coco(instances, images, captions, name)
    _refuse_no_photos(annotated, images)
    dropped = Counter(annotated.dropped)
    card = {
        "name": name,
        "kind": "regions",
        "rendered": annotated.rendered,
        "licence": licence,
        "made": made,
        "read": _read_counts(annotated),
        "categories": [_category(category) for category in annotated.categories.values()],
        "dropped": dropped,
    }
    return write_shards(_samples(annotated, dropped, progress), out, card, shard_size)


def _refuse_no_photos(annotated: AnnotatedSet, folder: Path) -> None:
    if not any(image.path.is_file() for image in annotated.images):
        first = f" (first: {annotated.images[0].path.name})" if annotated.images else ""
        count = len(annotated.images)
        raise ValueError(
            f"{folder}: expected the photos of {annotated.file.name}, found none of its {count}{first}; check --images"
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


def _samples(annotated: AnnotatedSet, dropped: Counter[str], progress: bool) -> Iterator[Sample]:
    """The samples in the order of the image ids; what is left out is counted into `dropped`."""
    images = sorted(annotated.images, key=lambda image: image.image_id)
    for image in tqdm(images, desc="copying photos", unit="image", disable=not progress):
        dropped["crowd"] += int(image.crowd.sum())
        try:
            data, ending = _photo(image)
        except DataError as error:
            dropped[error.reason] += 1
            dropped["region_of_dropped_image"] += int((~image.crowd).sum())
            continue
        yield _sample(image, data, ending, annotated)


def _photo(image: AnnotatedImage) -> tuple[bytes, str]:
    """The encoded photo and its file ending. Only the header is looked at.

    Raises:
        DataError: it cannot be used, and why.
    """
    if not image.path.is_file():
        raise DataError("image_missing", f"{image.path}: no such file")
    data = image.path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as header:
            encoding, size = header.format, header.size
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError("image_unreadable", f"{image.path}: {error}") from error
    if encoding not in _ENDINGS:
        raise DataError("image_of_other_format", f"{image.path}: expected JPEG, PNG or WebP, got {encoding}")
    if size != (image.width, image.height):
        raise DataError("image_of_other_size", f"{image.path}: {size}, its annotation {image.width} x {image.height}")
    return data, _ENDINGS[encoding]


def _sample(image: AnnotatedImage, data: bytes, ending: str, annotated: AnnotatedSet) -> Sample:
    kept = (~image.crowd).nonzero()[0].tolist()
    regions = tuple(
        Region(
            tuple(image.boxes_xyxy[row].tolist()),
            annotated.categories[int(image.category_ids[row])].name,
            extras={"category_id": int(image.category_ids[row]), "annotation_id": int(image.annotation_ids[row])},
        )
        for row in kept
    )
    extras = {
        "image_id": image.image_id,
        "captions": list(image.captions),
        "source": {"dataset": annotated.name, "file_name": image.path.name},
    }
    caption = image.captions[0] if image.captions else ""
    return Sample(f"{image.image_id:012d}", data, ending, image.width, image.height, caption, regions, extras)
