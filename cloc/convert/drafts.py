"""A draft is a sample whose photo has not been read yet: small, so that it can be handed to another process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cloc.files import is_text, parse_object
from cloc.formats.photos import read_photo_header, read_shown_size
from cloc.formats.sources import Location
from cloc.images import Placement
from cloc.structures import DataError, Region, Sample

Frame = Literal["pixels", "unit", "square"]

SHAPE_TOLERANCE = 0.02
"""How far the aspect ratio of a photo may be from what was told (rounding of small sides); beyond it was cropped."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One sample before its photo is read.

    Attributes:
        key: of the sample.
        photo: where the encoded photo lies, None where it is known to be missing.
        name: of the photo, for messages.
        caption: the text, or where its bytes lie.
        regions: boxes in `frame`.
        extras: further fields of KEY.json.
        size: (width, height) in pixels as the annotation tells, None where it does not. With boxes in pixels the photo
            must have this size; else its aspect ratio, within `SHAPE_TOLERANCE`.
        frame: of the boxes: `pixels` of the photo; `unit`, [0, 1] of the photo; `square`, [0, 1] of the photo padded to
            a square at its centre.
        beside: where img2dataset's JSON of the photo lies (or, in a table, its address), where it has one: it must
            tell the same address as the row, or where the row has none the same caption.
        address: of the photo, as the row tells.
    """

    key: str
    photo: Location | None
    name: str
    caption: str | Location = ""
    regions: tuple[Region, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    frame: Frame = "pixels"
    beside: Location | None = None
    address: str | None = None


def finish_drafts(drafts: list[Draft], dropped: Counter[str], examples: dict[str, str]) -> Iterator[Sample]:
    """The samples of those drafts whose photo can be used; the others are counted by reason.

    Args:
        drafts: they.
        dropped: gets the reasons.
        examples: gets the first message of each.
    """
    keys = set[str]()
    for draft in drafts:
        try:
            if draft.key in keys:
                raise DataError("duplicate_key", f"{draft.name}: key {draft.key} stands twice")
            sample = make_sample(draft, dropped)
        except DataError as error:
            reason, message = error.reason, str(error)
        except MemoryError:
            reason, message = "image_too_large", f"{draft.name}: it does not fit into memory"
        else:
            keys.add(draft.key)
            yield sample
            continue
        dropped[reason] += 1
        dropped["region_of_dropped_image"] += len(draft.regions)
        examples.setdefault(reason, message.encode("utf-8", "replace").decode())


def make_sample(draft: Draft, dropped: Counter[str]) -> Sample:
    """Read the photo and, where it lies elsewhere, the caption; put the boxes into pixels.

    Args:
        draft: what is known without the photo.
        dropped: gets regions that lie outside (box_outside), were cut (box_cut_at_border) or are too small
            (empty_box).

    Raises:
        DataError: image_missing, image_unreadable, image_of_other_format, image_of_other_size (or _shape),
            image_with_swapped_sides, image_too_large, image_of_other_row, caption_missing, empty_caption or bad_text.
    """
    if draft.photo is None:
        raise DataError("image_missing", f"{draft.name}: a text without a photo")
    if draft.beside is not None:
        _refuse_other_row(draft, draft.beside)
    caption = draft.caption if isinstance(draft.caption, str) else _read_caption(draft.caption, draft.name)
    data = draft.photo.read()
    ending, stored = read_photo_header(data, draft.name)
    size = _find_size_in_frame(draft, data, stored)
    regions = tuple(_convert_to_pixels(draft, size, dropped))
    return Sample(draft.key, data, ending, *size, caption, regions, draft.extras)


def _refuse_other_row(draft: Draft, beside: Location) -> None:
    """Keys are numbered anew in each download: the photo under a key may be that of another row."""
    try:
        content = beside.read()
        content = {"url": content.decode("utf-8", "replace")} if beside.row >= 0 else parse_object(content, draft.name)
    except ValueError:  # none there, or none that can be read: nothing is known
        return
    if draft.address is not None:
        here, there = draft.address.strip(), content.get("url")
    else:
        here, there = " ".join(str(draft.caption).split()), content.get("caption")
    if is_text(there) and there.strip() and " ".join(there.split()) != here:
        raise DataError("image_of_other_row", f"{draft.name}: the photo there is {there!r:.80}, the row's {here!r:.80}")


def _read_caption(location: Location, name: str) -> str:
    try:
        caption = " ".join(location.read().decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise DataError("bad_text", f"{name}: expected a text in UTF-8 ({error})") from error
    if not caption:
        raise DataError("empty_caption", f"{name}: no text beside it")
    return caption


def _find_size_in_frame(draft: Draft, data: bytes, stored: tuple[int, int]) -> tuple[int, int]:
    """The photo's size in the frame of its annotation: stored, or turned as its EXIF says (see `cloc.images`)."""
    annotated = draft.size
    if annotated is None or _has_size(draft, stored):
        return stored
    if stored[0] != stored[1] and _has_size(draft, stored[::-1]):
        if read_shown_size(data, draft.name) == stored[::-1]:
            return stored[::-1]
        raise DataError(
            "image_with_swapped_sides",
            f"{draft.name}: {stored}, its annotation {annotated}: as if told in the frame that a viewer shows, but the "
            "photo's EXIF names no quarter turn; was it removed?",
        )
    shape = "size" if draft.frame == "pixels" else "shape"
    raise DataError(f"image_of_other_{shape}", f"{draft.name}: {stored}, its annotation {annotated}")


def _has_size(draft: Draft, size: tuple[int, int]) -> bool:
    (width, height), (told_width, told_height) = size, draft.size or size
    if draft.frame == "pixels":
        return size == draft.size
    return abs(width * told_height - height * told_width) <= SHAPE_TOLERANCE * width * told_height


def _convert_to_pixels(draft: Draft, size: tuple[int, int], dropped: Counter[str]) -> Iterator[Region]:
    square = Placement(*size)
    scale, shift = {
        "pixels": ((1.0, 1.0), (0, 0)),
        "unit": (size, (0, 0)),
        "square": ((square.side, square.side), square.offset),
    }[draft.frame]
    for region in draft.regions:
        try:
            moved = region if draft.frame == "pixels" else _move(region, scale, shift)
            kept = moved.inside(*size)
        except DataError as error:
            dropped[error.reason] += 1
            continue
        dropped["box_cut_at_border"] += kept is not moved
        yield kept


def _move(region: Region, scale: tuple[float, float], shift: tuple[int, int]) -> Region:
    box = tuple(value * scale[i % 2] - shift[i % 2] for i, value in enumerate(region.box))
    return replace(region, box=box)


def make_region(box: object, phrase: object, dropped: Counter[str], **more: Any) -> Region | None:
    """A region, or None (counted) where box or phrase cannot be used.

    Args:
        box: four numbers.
        phrase: its text.
        dropped: gets the reason.
        more: `score` and `extras` of the region.
    """
    try:
        return Region(tuple(box) if isinstance(box, (list, tuple)) else (), phrase, **more)
    except DataError as error:
        dropped[error.reason] += 1
        return None
