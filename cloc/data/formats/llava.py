"""LLaVA's conversations: what in them is a caption, and what speaks of one box.

Layout (haotian-liu/LLaVA, `docs/Finetune_Custom_Data.md`): `[{id, image, conversations: [{from, value}]}]`, from
`human` and `gpt` in turn.
Boxes stand in the text as `[x0, y0, x1, y1]` of 0 to 1. In LLaVA-1.5's own data they are of the photo padded to a
square at its centre (issues 606 and 822 of its repository); other makers divide by width and height.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloc.files import is_text

_NUMBER = r"(\d{1,20}(?:\.\d{1,40})?)"
_BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([_NUMBER] * 4) + r"\s*\]")
_CAPTION_WORDS = 4
"""Shorter answers are answers (`Yes.`, `2`), no captions."""


@dataclass(frozen=True)
class Conversation:
    """One entry.

    Attributes:
        image: path of the photo.
        caption: the answer of a conversation of one round without boxes, of at least four words; else empty.
        spoken: (box as four numbers in [0, 1], phrase) where one box and one text speak of each other.
        turns: the conversation, who says what.
    """

    image: str
    caption: str
    spoken: tuple[tuple[tuple[float, ...], str], ...]
    turns: list[Any]


def read_conversation(row: Mapping[str, Any]) -> Conversation | str:
    """One entry, or why it cannot be used: no_image, video, several_images, bad_row.

    Its photo is `image`, `images` (a list of one) or `image_path`.

    A round speaks of one box where its question ends with the box and its answer has none (the answer is the phrase),
    or where the answer is the box alone (the phrase is what the question says behind its last colon).
    """
    image = next((row[name] for name in ("image", "images", "image_path") if row.get(name)), None)
    turns = row.get("conversations")
    if image is None:
        return "video" if row.get("video") else "no_image"
    if isinstance(image, list) and len(image) != 1:
        return "several_images"
    image = image[0] if isinstance(image, list) else image
    if not is_text(image) or not isinstance(turns, list) or not all(map(_is_turn, turns)):
        return "bad_row"
    texts = [(turn["from"], " ".join(turn["value"].replace("<image>", " ").split())) for turn in turns]
    rounds = [(q, a) for (who, q), (other, a) in itertools.pairwise(texts) if (who, other) == ("human", "gpt")]
    found = [spoken_of(question, answer) for question, answer in rounds]
    alone = rounds[0] if len(rounds) == 1 else ("[0, 0, 1, 1]", "")
    caption = alone[1] if not _BOX.search(" ".join(alone)) and len(alone[1].split()) >= _CAPTION_WORDS else ""
    return Conversation(image, caption, tuple(one for one in found if one is not None), _plain(turns))


def spoken_of(question: str, answer: str) -> tuple[tuple[float, ...], str] | None:
    """(box, phrase) of a round that speaks of one box, else None."""
    asked, told = list(_BOX.finditer(question)), list(_BOX.finditer(answer))
    if len(asked) == 1 and not told and not question[asked[0].end() :].strip(" .?!"):
        return _numbers(asked[0]), answer
    if not asked and len(told) == 1 and not _BOX.sub("", answer).strip(" .") and ":" in question:
        return _numbers(told[0]), question.rpartition(":")[2].strip().rstrip(".").strip()
    return None


def _numbers(match: re.Match[str]) -> tuple[float, ...]:
    return tuple(map(float, match.groups()))


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and is_text(turn.get("value")) and is_text(turn.get("from"))


def _plain(turns: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns as they came, without what is no plain value."""
    return [{k: v for k, v in turn.items() if is_text(v) or type(v) in (int, bool)} for turn in turns]
