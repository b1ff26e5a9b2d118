"""Flickr30k Entities as grounding shards: one sample a caption, one region a phrase and box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft, make_region
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.flickr30k_entities import EntitiesPhoto, Mention, list_photos, read_entities
from cloc.formats.pairs import hash_listing
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos
from cloc.structures import Region

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_flickr30k_entities(
    root: Path,
    images: Path,
    out: Path,
    split: str = "train",
    allow_evaluation_split: bool = False,
    **making: Unpack[Making],
) -> dict[str, Any]:
    """Convert one split to shards of kind `grounding`. A phrase with three boxes gives three regions.

    Phrases whose entity has no box (scenes, things that cannot be seen) are counted as `phrase_without_box`.

    Args:
        root: folder that holds `Sentences`, `Annotations` and `train.txt`.
        images: where the photos (`ID.jpg`) lie, see `Photos`.
        out: folder to make.
        split: train, val or test.
        allow_evaluation_split: convert another split than train.
        **making: see `Making`.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an evaluation split without permission; an input is missing, no photo is there, or `out` holds
            something else.
    """
    root = Path(root)
    if split != "train" and not allow_evaluation_split:
        raise ValueError(
            f"flickr30k_entities {split} is an evaluation split: an encoder trained on it has seen the benchmark's "
            "answers. Convert --split train, or give --allow-evaluation-split to have it all the same"
        )
    numbers, photos = list_photos(root, split), Photos([images])
    files = sorted(path for folder in ("Sentences", "Annotations") for path in (root / folder).iterdir())
    inputs = {"list": hash_input(root / f"{split}.txt"), "listing_sha256": hash_listing(root, files)}
    making.setdefault("name", "flickr30k_entities" + ("" if split == "train" else f"-{split}"))
    making.setdefault("licence", "photos: Flickr's terms; annotations: as their README says")
    job = Conversion("flickr30k_entities", CONVERTER, Path(out), inputs, "grounding", **making)
    return job.run(root, lambda reading: _make_drafts(root, numbers, photos, job.name, split, reading))


def _make_drafts(
    root: Path, numbers: list[str], photos: Photos, name: str, split: str, reading: Reading
) -> Iterator[Draft]:
    reading.read.update(photos=len(numbers), captions=0, phrases=0)
    for photo in read_entities(root, numbers, reading.dropped):
        file_name = f"{photo.number}.jpg"
        texts = [caption for caption, _ in photo.captions]
        source = {"dataset": name, "split": split, "file_name": file_name}
        extras = {"image_id": int(photo.number), "captions": texts, "source": source}
        for number, (caption, mentions) in enumerate(photo.captions):
            reading.read.update(captions=1, phrases=len(mentions))
            regions = tuple(
                region for mention in mentions for region in _make_regions(photo, caption, mention, reading)
            )
            location = find_photo(photos, (file_name,), reading, len(regions))
            if location is not None:
                size = (photo.width, photo.height)
                yield Draft(f"{photo.number}_{number}", location, file_name, caption, regions, extras, size)
    reading.dropped.update(photos.dropped)


def _make_regions(photo: EntitiesPhoto, caption: str, mention: Mention, reading: Reading) -> Iterator[Region]:
    boxes = photo.boxes_xyxy.get(mention.chain, [])
    reading.dropped["phrase_without_box"] += not boxes
    extras = {"span": [mention.start, mention.end], "entity_id": mention.chain, "entity_type": mention.kind}
    for box_xyxy in boxes:
        region = make_region(box_xyxy, caption[mention.start : mention.end], reading.dropped, extras=extras)
        if region is not None:
            yield region
