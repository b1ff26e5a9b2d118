"""GoldG, MDETR's pre-training files (Flickr30k, GQA and Visual Genome), as grounding shards: one sample a caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft, make_region
from cloc.convert.job import Conversion, Making, Reading
from cloc.files import is_text
from cloc.formats.annotated_stream import AnnotatedStream, StreamedImage
from cloc.formats.numbers import parse_whole
from cloc.formats.photos import hash_input
from cloc.formats.rows import join_phrase, strip_caption
from cloc.formats.sources import Photos
from cloc.structures import Region

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_goldg(images: Sequence[Path], annotations: Path, out: Path, **making: Unpack[Making]) -> dict[str, Any]:
    """Convert `final_mixed_train_no_coco.json` or `final_flickr_separateGT_train.json` to shards of kind `grounding`.

    Layout (MDETR's `.github/pretrain.md` and its dataset class): COCO's JSON in which each of `images` is one caption
    of a photo (`caption`, `file_name`, `dataset_name`, `original_img_id`), and each annotation has `tokens_positive`,
    a list of [start, end) in that caption. A photo with several captions gives several samples. A phrase in one piece
    has its `span`; pieces apart are joined and have none.

    Args:
        images: where the photos lie (GQA's or Visual Genome's, Flickr30k's), see `Photos`.
        annotations: the JSON.
        out: folder to make.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    annotations, photos = Path(annotations), Photos(images)
    inputs = {"annotations": hash_input(annotations)}
    job = Conversion("goldg", CONVERTER, Path(out), inputs, "grounding", **making)
    return job.run_stream(
        f"{photos}, {annotations.name}",
        lambda: AnnotatedStream(annotations, "MDETR's annotation file", categories=False),
        lambda stream, reading: _make_drafts(stream, photos, job.name, reading),
    )


def _make_drafts(stream: AnnotatedStream, photos: Photos, name: str, reading: Reading) -> Iterator[Draft]:
    reading.read.update(captions=0, boxes=0)
    for image in stream:
        entry = image.entry
        boxes = len(image.annotations["annotation_ids"])
        reading.read.update(captions=1, boxes=boxes)
        text = entry.get("caption")
        if not is_text(text) or not text.strip():
            reading.dropped["empty_caption"] += 1
            reading.dropped["region_of_dropped_image"] += boxes
            continue
        caption, lead = strip_caption(text)
        regions = tuple(_make_regions(image, caption, lead, reading))
        file_name = entry["file_name"]
        location = find_photo(photos, (file_name,), reading, len(regions))
        if location is not None:
            source = {"dataset": name, "file_name": file_name}
            source |= {key: entry[key] for key in ("dataset_name", "original_img_id") if _is_plain(entry.get(key))}
            extras = {"image_id": entry["id"], "source": source}
            size = (entry["width"], entry["height"])
            yield Draft(f"{entry['id']:012d}", location, file_name, caption, regions, extras, size)
    reading.dropped.update(stream.dropped + photos.dropped)


def _make_regions(image: StreamedImage, caption: str, lead: int, reading: Reading) -> Iterator[Region]:
    columns = (image.annotations[name].tolist() for name in ("boxes_xyxy", "annotation_ids"))
    for box_xyxy, number, raw in zip(*columns, image.raw, strict=True):
        phrase, span = join_phrase(caption, raw.get("tokens_positive"), lead)
        if phrase is None:
            reading.dropped["bad_span"] += 1
            continue
        extras: dict[str, Any] = {"annotation_id": number} if number >= 0 or raw.get("id") is not None else {}
        extras |= {"span": span} if span is not None else {}
        region = make_region(box_xyxy, phrase, reading.dropped, extras=extras)
        if region is not None:
            yield region


def _is_plain(value: object) -> bool:
    return is_text(value) or parse_whole(value) is not None
