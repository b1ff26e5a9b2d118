"""LLaVA's conversations as shards: captions where an answer is one, regions where a round speaks of one box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft, Frame, make_region
from cloc.convert.job import Conversion, Making, Reading
from cloc.files import is_text
from cloc.formats.frames import UNIT, FrameWatch, PaddingWatch
from cloc.formats.llava import Conversation, read_conversation
from cloc.formats.numbers import parse_whole
from cloc.formats.photos import hash_input, read_photo_header
from cloc.formats.rows import stream_rows
from cloc.formats.sources import Location, Photos
from cloc.structures import DataError

CONVERTER = 1
"""Raised when equal input gives other shards than before."""

COORDINATES: tuple[Frame, ...] = ("square", "unit")
"""What 0 to 1 means: of the photo padded to a square (LLaVA-1.5's own data), or of the photo."""

LOOKED_AT = 200
"""Photos with boxes, of the first ones, whose shape is held against their boxes."""


def convert_llava(
    images: Sequence[Path], conversations: Path, out: Path, coordinates: Frame = "square", **making: Unpack[Making]
) -> dict[str, Any]:
    """Convert conversations to shards of kind `regions`. `conversations` of KEY.json keeps them as they came.

    Entries that give neither a caption nor a region are counted as `no_caption_no_region`: an encoder has nothing to
    learn from them. (Tuning an MLLM on conversations takes the JSON as it is and needs no shards.)

    Args:
        images: folder that the `image` paths start from, see `Photos`.
        conversations: LLaVA's JSON.
        out: folder to make.
        coordinates: one of `COORDINATES`.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    conversations = Path(conversations)
    if coordinates not in COORDINATES:
        raise ValueError(f"--coordinates: expected one of {', '.join(COORDINATES)}, got {coordinates!r}")
    photos = Photos(images)
    inputs = {"conversations": hash_input(conversations), "coordinates": coordinates}
    job = Conversion("llava", CONVERTER, Path(out), inputs, "regions", **making)
    return job.run(conversations, lambda reading: _make_drafts(conversations, coordinates, photos, job.name, reading))


def _make_drafts(file: Path, coordinates: Frame, photos: Photos, name: str, reading: Reading) -> Iterator[Draft]:
    reading.read.update(conversations=0, regions=0)
    watch, padding = FrameWatch(file, UNIT), PaddingWatch(file, coordinates == "square")
    looked = 0
    for row in stream_rows(file, "LLaVA's conversations", reading.dropped):
        number = reading.read["conversations"]
        reading.read["conversations"] += 1
        found = read_conversation(row)
        if isinstance(found, str):
            reading.dropped[found] += 1
            continue
        reading.read["regions"] += len(found.spoken)
        for box, _ in found.spoken:
            watch.see(box)
        candidates = [make_region(box, phrase, reading.dropped) for box, phrase in found.spoken]
        regions = tuple(region for region in candidates if region is not None)
        if not regions and not found.caption:
            reading.dropped["no_caption_no_region"] += 1
            continue
        location = find_photo(photos, (found.image,), reading, len(regions))
        if location is not None:
            if found.spoken and looked < LOOKED_AT:
                looked += 1
                _look(location, found, padding)
                if looked == LOOKED_AT:
                    padding.refuse(reading.dropped)
            own = row.get("id")
            own = own if is_text(own) or parse_whole(own) is not None else None
            source = {"dataset": name, "file_name": found.image, "id": own}
            extras = {"conversations": found.turns, "source": source}
            yield Draft(f"{number:09d}", location, found.image, found.caption, regions, extras, None, coordinates)
    watch.refuse(reading.dropped)
    if looked < LOOKED_AT:
        padding.refuse(reading.dropped)
    reading.dropped.update(photos.dropped)


def _look(location: Location, found: Conversation, padding: PaddingWatch) -> None:
    try:
        size = read_photo_header(location.read(), found.image)[1]
    except DataError:  # counted when its turn comes
        return
    for box, _ in found.spoken:
        padding.see(box, *size)
