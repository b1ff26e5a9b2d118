"""What every converter does alike: photos are taken over byte by byte, inputs are named by their hash."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from cloc.data.shards import write_shards
from cloc.structures import DataError, Sample

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def fingerprint(file: Path) -> dict[str, str]:
    """Name and hash of an input file, for the card's `made`.

    Raises:
        ValueError: there is no such file.
    """
    if not file.is_file():
        raise ValueError(f"{file}: expected an annotation file, found no file; check the path")
    with file.open("rb") as opened:
        return {"file": file.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def refuse_no_folder(images: Path) -> None:
    """ValueError where the folder of the photos is not there."""
    if not images.is_dir():
        raise ValueError(f"{images}: expected the folder of the photos, found no folder; check --images")


def header_of(data: bytes, where: str) -> tuple[str, tuple[int, int]]:
    """(file ending, (width, height) in pixels) of an encoded photo. Only the header is looked at.

    Raises:
        DataError: image_unreadable or image_of_other_format.
    """
    try:
        with Image.open(io.BytesIO(data)) as header:
            encoding, size = header.format, header.size
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError("image_unreadable", f"{where}: {error}") from error
    if encoding not in _ENDINGS:
        raise DataError("image_of_other_format", f"{where}: expected JPEG, PNG or WebP, got {encoding}")
    return _ENDINGS[encoding], size


def read_photo(path: Path) -> tuple[bytes, str, tuple[int, int]]:
    """(encoded photo, file ending, (width, height) in pixels).

    Raises:
        DataError: image_missing, image_unreadable or image_of_other_format.
    """
    if not os.path.isfile(path):  # unlike Path.is_file it says no to a name that is too long
        raise DataError("image_missing", f"{path}: no such file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("image_unreadable", f"{path}: {error}") from error
    return data, *header_of(data, str(path))


def read_photo_of_size(path: Path, width: int, height: int) -> tuple[bytes, str]:
    """(encoded photo, file ending) of a photo that must have the size its annotation tells, in pixels.

    Raises:
        DataError: as `read_photo`, or image_of_other_size.
    """
    data, ending, size = read_photo(path)
    if size != (width, height):
        raise DataError("image_of_other_size", f"{path}: {size}, its annotation {width} x {height}")
    return data, ending


def write_counted(
    samples: Iterator[Sample], out: Path, card: Mapping[str, Any], shard_size: int, where: Path
) -> dict[str, Any]:
    """`write_shards` that says why there is no sample, before anything is written.

    Args:
        samples: may count into `card["dropped"]` and `card["read"]` until it ends.
        out: folder to make.
        card: as for `write_shards`, with a Counter in `dropped`.
        shard_size: samples a shard.
        where: what the samples come from, for the message.

    Raises:
        ValueError: as `write_shards`; or there is no sample.
    """
    first = next(samples, None)
    if first is None:
        dropped: Counter[str] = card["dropped"]
        why = ", ".join(f"{number:,} {reason}" for reason, number in sorted((+dropped).items())) or "it is empty"
        raise ValueError(f"{where}: expected at least one usable image, found none ({why}); check it and --images")
    return write_shards(itertools.chain([first], samples), out, card, shard_size)
