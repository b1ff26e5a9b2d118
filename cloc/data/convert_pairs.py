"""Image-text pairs as shards of kind `pairs`: photos with a `.txt` beside each, loose or in img2dataset's tars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.data.convert_photos import header_of, refuse_no_folder, write_counted
from cloc.data.formats.pairs import Pair, listing_hash, pair_files, read_pairs
from cloc.data.shards import already_made
from cloc.structures import DataError, Sample

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_pairs(
    images: Path,
    out: Path,
    name: str = "pairs",
    shard_size: int = 1000,
    licence: str = "not stated",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert image-text pairs to shards of kind `pairs`. A photo without a text is of no use here, and is counted.

    Keys are running numbers, for names may hold dots and keys of different tars may be equal; `source` keeps the name.

    Args:
        images: folder of `KEY.jpg` (png, webp) and `KEY.txt`, at any depth; or of tars of them.
        out: folder to make; one that is there and was made from the same files (names and sizes) is left alone.
        name: of the set, for its card.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

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
    files = pair_files(images)
    made = {
        "by": "cloc.data.convert pairs",
        "converter": CONVERTER,
        "files": len(files),
        "listing_sha256": listing_hash(images, files),
        "name": name,
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    dropped, read = Counter[str](), Counter[str](pairs=0)
    card = {"name": name, "kind": "pairs", "rendered": False, "licence": licence, "made": made}
    card |= {"read": read, "dropped": dropped}
    pairs = tqdm(read_pairs(images, files, dropped), desc="copying photos", unit="image", disable=not progress)
    return write_counted(_samples(pairs, name, read, dropped), out, card, shard_size, images)


def _samples(pairs: Iterator[Pair], name: str, read: Counter[str], dropped: Counter[str]) -> Iterator[Sample]:
    for pair in pairs:
        read["pairs"] += 1
        try:
            yield _sample(f"{read['pairs'] - 1:09d}", pair, name)
        except DataError as error:
            dropped[error.reason] += 1


def _sample(key: str, pair: Pair, name: str) -> Sample:
    if pair.image is None:
        raise DataError("image_missing", f"{pair.name}: a text without a photo")
    if pair.text is None:
        raise DataError("caption_missing", f"{pair.name}: a photo without a text")
    try:
        caption = " ".join(pair.text.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise DataError("bad_text", f"{pair.name}.txt: expected UTF-8 ({error})") from error
    if not caption:
        raise DataError("empty_caption", f"{pair.name}.txt: no text in it")
    ending, (width, height) = header_of(pair.image, pair.name)
    source = {"dataset": name, "file_name": pair.name.encode("utf-8", "replace").decode()}
    return Sample(key, pair.image, ending, width, height, caption, (), {"source": source})
