"""Flickr30k Entities: captions with marked phrases, and boxes for them in XML.

Layout (bryanplummer/flickr30k_entities): `Sentences/ID.txt`, a caption a line with `[/EN#chain/type words]`;
`Annotations/ID.xml`, whose objects name the chains that a box belongs to; `train.txt`, `val.txt`, `test.txt` list IDs.
Boxes count pixels from 1; as the publisher's own reader does, 1 is taken off all four numbers.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloc.formats.frames import XYXY, FrameWatch
from cloc.formats.numbers import parse_real, parse_whole

_MARK = re.compile(r"\[/EN#(\d{1,18})/(\S+)\s+([^\]]*)\]")
_DECLARES = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Mention:
    """A marked phrase.

    Attributes:
        chain: the entity that it speaks of; chain 0 is nothing that can be seen.
        kind: people, clothing, ..., several joined by `/`.
        start, end: place in the caption.
    """

    chain: int
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class EntitiesPhoto:
    """One photo.

    Attributes:
        number: its ID; the photo is `ID.jpg`.
        width, height: pixels.
        captions: (text without marks, its mentions).
        boxes_xyxy: pixels, by chain. A chain may have several, and a box several chains.
    """

    number: str
    width: int
    height: int
    captions: tuple[tuple[str, tuple[Mention, ...]], ...]
    boxes_xyxy: dict[int, list[tuple[float, ...]]]


def list_photos(root: Path, split: str) -> list[str]:
    """The IDs of a split, in the order of its list.

    Raises:
        ValueError: the list or one of the folders is missing, or it holds no ID.
    """
    for folder in ("Sentences", "Annotations"):
        if not (root / folder).is_dir():
            raise ValueError(
                f"{root}: expected Flickr30k Entities with the folder {folder}, found none; unpack it there"
            )
    file = root / f"{split}.txt"
    if not file.is_file():
        raise ValueError(f"{file}: expected the list of the split's photos, found no file; give another --split")
    numbers = file.read_text(encoding="utf-8-sig", errors="replace").split()
    bad = next((number for number in numbers if not (number.isascii() and number.isdigit() and len(number) < 19)), None)
    if bad is not None or not numbers:
        raise ValueError(f"{file}: expected a number a line, got {bad or 'nothing'}")
    return numbers


def read_entities(root: Path, numbers: list[str], dropped: Counter[str]) -> Iterator[EntitiesPhoto]:
    """Read photos one at a time.

    Args:
        root: folder that holds `Sentences` and `Annotations`.
        numbers: IDs.
        dropped: gets annotation_missing, bad_annotation (no such XML, or one that declares entities), caption_missing.
    """
    watch = FrameWatch(root / "Annotations", XYXY)
    for number in dict.fromkeys(numbers):  # a list may name one twice
        try:
            sentences = (root / "Sentences" / f"{number}.txt").read_text(encoding="utf-8")
            data = (root / "Annotations" / f"{number}.xml").read_bytes()
        except FileNotFoundError:
            dropped["annotation_missing"] += 1
            continue
        except UnicodeDecodeError:
            dropped["bad_text"] += 1
            continue
        photo = _read_photo(
            number, data, tuple(parse_sentence(line) for line in sentences.splitlines() if line.strip()), dropped
        )
        if photo is None:
            dropped["bad_annotation"] += 1
        elif not photo.captions:
            dropped["caption_missing"] += 1
        else:
            for box in (box for boxes in photo.boxes_xyxy.values() for box in boxes):
                watch.see(box, photo.width, photo.height)
            yield photo
    watch.refuse(dropped)


def parse_sentence(line: str) -> tuple[str, tuple[Mention, ...]]:
    """(caption without marks, its mentions). Blanks are single."""
    text, mentions, at = "", [], 0
    for mark in _MARK.finditer(line):
        text = _join(text, line[at : mark.start()])
        before = len(text) + bool(text)
        text, at = _join(text, mark.group(3)), mark.end()
        if mark.group(3).strip():
            mentions.append(Mention(int(mark.group(1)), mark.group(2), before, len(text)))
    return _join(text, line[at:]), tuple(mentions)


def _join(text: str, more: str) -> str:
    more = " ".join(more.split())
    return f"{text} {more}" if text and more else text + more


def _read_photo(
    number: str, data: bytes, captions: tuple[tuple[str, tuple[Mention, ...]], ...], dropped: Counter[str]
) -> EntitiesPhoto | None:
    """None for a file that is not such XML. One that declares a document type is refused before it is parsed: the
    publisher's files have none, and entities can be made to grow without end.
    """
    if _DECLARES.search(data) or b"\0" in data:
        return None
    try:
        tree = ElementTree.fromstring(data)
        size = [parse_whole(tree.findtext(f"size/{name}", "")) or 0 for name in ("width", "height")]
        boxes: dict[int, list[tuple[float, ...]]] = {}
        for found in tree.iter("object"):
            box = found.find("bndbox")
            if box is not None:  # others are scenes, or cannot be seen
                numbers = [parse_real(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax")]
                chains = [parse_whole(chain.text) for chain in found.findall("name")]
                if None in numbers or None in chains:
                    dropped["bad_box"] += 1
                    continue
                corners = tuple(value - 1 for value in numbers if value is not None)
                for chain in chains:
                    boxes.setdefault(chain, []).append(corners)
    except (ElementTree.ParseError, ValueError, LookupError):  # an encoding that Python does not know
        return None
    return EntitiesPhoto(number, *size, captions, boxes) if min(size) > 0 else None
