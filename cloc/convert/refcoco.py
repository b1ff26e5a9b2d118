"""RefCOCO, RefCOCO+ and RefCOCOg as shards: one sample an image, one region an expression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft, make_region
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.photos import hash_input, strip_root
from cloc.formats.refcoco import Expression, ReferringSet, read_refcoco
from cloc.formats.sources import Location, Photos

CONVERTER = 2
"""Raised when equal input gives other shards than before."""


def convert_refcoco(
    root: Path,
    dataset: str,
    out: Path,
    split: str = "train",
    images: Path | None = None,
    allow_evaluation_split: bool = False,
    **making: Unpack[Making],
) -> dict[str, Any]:
    """Convert one split to shards of kind `regions`. A region is the referent's box with one expression as its phrase.

    A referent with three expressions gives three regions with the same box. There is no caption.

    Args:
        root: folder that holds `refcoco/refs(unc).p` with instances.json, or `annotations_only/REC_*.jsonl`.
        dataset: refcoco, refcoco+ or refcocog.
        out: folder to make.
        split: train, val, testA, testB or test.
        images: where the photos lie, see `Photos`; without it `root/images/mscoco/images/train2014`, then
            `coco/train2014` beside it.
        allow_evaluation_split: convert another split than train.
        **making: see `Making`.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an evaluation split without permission; an input is missing, no photo is there, or `out` holds
            something else.
    """
    root, out = Path(root), Path(out)
    _refuse_evaluation(dataset, split, allow_evaluation_split)
    photos = None if images is None else Photos([images])
    found = read_refcoco(root, dataset, split)
    instances = found.file.with_name("instances.json")
    inputs = {
        "expressions": hash_input(found.file),
        "instances": hash_input(instances) if found.file.suffix != ".jsonl" else None,
    }
    making.setdefault("name", f"{dataset}-{split}")
    job = Conversion("refcoco", CONVERTER, out, inputs, "regions", rendered=found.rendered, **making)
    return job.run(found.file, lambda reading: _make_drafts(found, photos, reading), lambda: len(found.images))


def _refuse_evaluation(dataset: str, split: str, allowed: bool) -> None:
    if split != "train" and not allowed:
        raise ValueError(
            f"{dataset} {split} is an evaluation split: an encoder trained on it has seen the benchmark's answers, "
            "and its scores mean nothing. Convert --split train, or give --allow-evaluation-split to have it all the "
            "same (for a look, or for scoring)"
        )


def _make_drafts(found: ReferringSet, photos: Photos | None, reading: Reading) -> Iterator[Draft]:
    """The drafts in the order of the image ids."""
    reading.dropped.update(found.dropped)
    reading.read.update(images=len(found.images), expressions=len(found.expressions))
    spoken: dict[int, list[Expression]] = defaultdict(list)
    for expression in found.expressions:
        spoken[expression.image_id].append(expression)
    for image_id in sorted(spoken):
        image = found.images[image_id]
        candidates = [
            make_region(e.box_xyxy, e.text, reading.dropped, extras=_make_extras(e)) for e in spoken[image_id]
        ]
        regions = tuple(region for region in candidates if region is not None)
        file_name = image.file_name.replace("\\", "/").rpartition("/")[2]
        if photos is None:
            location: Location | None = Location(str(image.path))
        else:
            location = find_photo(photos, (strip_root(image.file_name),), reading, len(regions))
        if location is not None:
            source = {"dataset": found.name, "split": found.split, "file_name": file_name}
            extras = {"image_id": image_id, "source": source}
            yield Draft(f"{image_id:012d}", location, file_name, "", regions, extras, (image.width, image.height))


def _make_extras(expression: Expression) -> dict[str, Any]:
    """What the file tells of an expression beyond box and text; the jsonl layout has no referents."""
    known = {"sent_id": expression.sent_id}
    if expression.annotation_id is not None:
        known |= {"ref_id": expression.ref_id, "annotation_id": expression.annotation_id}
    return known | ({"kind": expression.kind} if expression.kind is not None else {})
