"""What every converter does alike: inputs are named by their hash, and of a photo the header is looked at."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cloc.images import MAX_PIXELS
from cloc.structures import DataError

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
        DataError: image_unreadable, image_of_other_format, or image_too_large: it claims more than `MAX_PIXELS`, which
            no loader of ours would decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as header:
                encoding, size = header.format, header.size
    except Image.DecompressionBombError as error:
        raise DataError("image_too_large", f"{where}: {error}") from error
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError("image_unreadable", f"{where}: {error}") from error
    if encoding not in _ENDINGS:
        raise DataError("image_of_other_format", f"{where}: expected JPEG, PNG or WebP, got {encoding}")
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError("image_too_large", f"{where}: it claims {size[0]} x {size[1]} pixels, at most {MAX_PIXELS:,}")
    return _ENDINGS[encoding], size
