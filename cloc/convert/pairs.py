"""Image-text pairs as shards of kind `pairs`: photos with a `.txt` beside each, loose or as img2dataset has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.drafts import Draft
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.pairs import hash_listing, list_pair_files, read_pairs
from cloc.formats.photos import refuse_no_folder

CONVERTER = 2
"""Raised when equal input gives other shards than before."""


def convert_pairs(images: Path, out: Path, **making: Unpack[Making]) -> dict[str, Any]:
    """Convert image-text pairs to shards of kind `pairs`. A photo without a text is of no use here, and is counted.

    Keys are running numbers, for names may hold dots and keys of different tars may be equal; `source` keeps the name.

    Args:
        images: folder of `KEY.jpg` (png, webp) and `KEY.txt`, at any depth; or of tars or Parquet files of them.
        out: folder to make.
        **making: see `Making`.

    Returns:
        The card; `dropped` counts by reason what was left out: caption_missing, empty_caption, bad_text (no UTF-8),
        and photos as `image_...`.

    Raises:
        ValueError: the folder holds no pairs, no pair can be used, or `out` holds something else.
    """
    images, out = Path(images), Path(out)
    refuse_no_folder(images)
    if out.resolve().is_relative_to(images.resolve()):
        raise ValueError(f"{out}: expected a folder outside {images}, whose files are all read; give another --out")
    files = list_pair_files(images)
    inputs = {"files": len(files), "listing_sha256": hash_listing(images, files)}
    making.setdefault("licence", "not stated")
    job = Conversion("pairs", CONVERTER, out, inputs, "pairs", **making)
    total = None if files[0].suffix in (".tar", ".parquet") else (lambda: len(files) // 2)
    return job.run(images, lambda reading: _make_drafts(images, files, job.name, reading), total)


def _make_drafts(images: Path, files: list[Path], name: str, reading: Reading) -> Iterator[Draft]:
    reading.read.update(pairs=0)
    for pair in read_pairs(images, files, reading.dropped):
        number = reading.read["pairs"]
        reading.read["pairs"] += 1
        if pair.image is None or pair.text is None:
            reading.dropped["image_missing" if pair.image is None else "caption_missing"] += 1
            continue
        caption = " ".join(pair.text.split()) if isinstance(pair.text, str) else pair.text
        if not caption:
            reading.dropped["empty_caption"] += 1
            continue
        source = {"dataset": name, "file_name": pair.name.encode("utf-8", "replace").decode()}
        yield Draft(f"{number:09d}", pair.image, pair.name, caption, extras={"source": source})
