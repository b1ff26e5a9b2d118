"""A streamed annotation file (COCO, LVIS, Objects365) as drafts: one an image, one region an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloc.convert.drafts import Draft, make_region
from cloc.convert.job import Reading
from cloc.formats.annotated import Category, find_category_ids
from cloc.formats.annotated_stream import AnnotatedStream, StreamedImage
from cloc.formats.segmentation import to_rle
from cloc.formats.sources import Location, Photos
from cloc.structures import DataError


def make_annotated_drafts(
    stream: AnnotatedStream,
    reading: Reading,
    photos: Photos,
    names: Callable[[Mapping[str, Any]], tuple[str, ...]],
    name: str,
    detection: bool = False,
    masks: bool = False,
) -> Iterator[Draft]:
    """The drafts by image id. Crowd boxes stand for no single object: they are no regions (counted as `crowd`), and
    KEY.json lists them as `crowds`, since their category is in the photo all the same.

    Args:
        stream: the file; the phrase of a region is its category's name (in detection sets with blanks for underscores).
        reading: gets images, boxes and captions, and what is left out.
        photos: where they lie.
        names: under which the photo of an entry of `images` may lie, the likeliest first; none where nothing tells.
        name: of the set.
        detection: keep the categories that were checked to be absent, and those of which some instances carry no box.
        masks: give regions their `mask`, where the stream was read with `outlines`; a region without one that can be
            drawn stays, and is counted.
    """
    known = {category.name for category in stream.categories.values()}
    reading.card["categories"] = [_make_category(category, known) for category in stream.categories.values()]
    reading.card["rendered"] = stream.rendered
    reading.read.update(images=0, boxes=0, captions=0)
    phrases = {c.id: c.name.replace("_", " ") if detection else c.name for c in stream.categories.values()}
    for image in stream:
        crowd = int(image.annotations["crowd"].sum())
        boxes = len(image.annotations["crowd"])
        reading.read.update(images=1, boxes=boxes, captions=len(image.captions))
        reading.dropped["crowd"] += crowd
        called = names(image.entry)
        if not called:
            reading.dropped["image_without_name"] += 1
            reading.dropped["region_of_dropped_image"] += boxes - crowd
            continue
        location = find_photo(photos, called, reading, boxes - crowd)
        if location is not None:
            source = {"dataset": name, "file_name": called[0].rsplit("/", 1)[-1]}
            yield _make_draft(image, location, phrases, source, reading.dropped, detection, masks)
    reading.dropped.update(stream.dropped + photos.dropped)


def find_photo(photos: Photos, names: tuple[str, ...], reading: Reading, regions: int) -> Location | None:
    """Where a photo lies, None (counted, with its regions) where its name climbs out of the folder or means several."""
    try:
        return photos.find(*names)
    except DataError as error:
        reading.dropped[error.reason] += 1
        reading.dropped["region_of_dropped_image"] += regions
        reading.examples.setdefault(error.reason, str(error))
        return None


def _make_category(category: Category, known: set[str]) -> dict[str, Any]:
    """Its entry of the card. A supercategory counts where it is a category itself, as exports with a root have it."""
    above = category.supercategory if category.supercategory in known - {category.name} else ""
    return {
        "id": category.id,
        "name": category.name,
        "definition": category.definition,
        "frequency": category.frequency,
        "caption_only": category.caption_only,
        **({"synonyms": list(category.synonyms)} if category.synonyms else {}),
        **({"supercategory": above} if above else {}),
    }


def _make_draft(
    image: StreamedImage,
    location: Location,
    phrases: Mapping[int, str],
    source: dict[str, Any],
    dropped: Counter[str],
    detection: bool,
    masks: bool,
) -> Draft:
    entry, table = image.entry, image.annotations
    columns = (table[name].tolist() for name in ("boxes_xyxy", "category_ids", "annotation_ids", "crowd"))
    regions, crowds = [], []
    for box, category, number, crowd, raw in zip(*columns, image.raw, strict=True):
        if crowd:
            crowds.append({"box": box, "phrase": phrases[category], "category_id": category})
            continue
        extras: dict[str, Any] = {"category_id": category}
        if number >= 0 or raw.get("id") is not None:  # one that has none of its own has none in the shard
            extras["annotation_id"] = number
        if masks:
            _put_mask(extras, raw.get("segmentation"), entry["width"], entry["height"], dropped)
        region = make_region(box, phrases[category], dropped, extras=extras)
        if region is not None:
            regions.append(region)
    more: dict[str, Any] = {"image_id": entry["id"], "captions": list(image.captions)}
    if detection:
        for field in ("neg_category_ids", "not_exhaustive_category_ids"):
            more[field] = sorted(find_category_ids(entry, field))
    if crowds:
        more["crowds"] = crowds
    more["source"] = source
    caption = image.captions[0] if image.captions else ""
    size = (entry["width"], entry["height"])
    return Draft(f"{entry['id']:012d}", location, source["file_name"], caption, tuple(regions), more, size)


def _put_mask(extras: dict[str, Any], outline: object, width: int, height: int, dropped: Counter[str]) -> None:
    try:
        extras["mask"] = to_rle(outline, width, height)
    except DataError as error:
        dropped[error.reason] += 1
