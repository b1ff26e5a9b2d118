"""LLaVA's conversations: what in them is a caption, and what speaks of one box.

Layout (haotian-liu/LLaVA, `docs/Finetune_Custom_Data.md`): `[{id, image, conversations: [{from, value}]}]`, from
`human` and `gpt` in turn.
Other tools write the same with other names, which are read too: `images`, `image_path`, `image_paths` or `image_file`
for `image`, `messages` of {role, content} for `conversations`, file names with backslashes. Videos and sounds are not
read; an entry that has one is counted.
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

_ASKS, _TELLS = ("human", "user"), ("gpt", "assistant")
_NUMBER = r"(\d{1,20}(?:\.\d{1,40})?)"
_BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([_NUMBER] * 4) + r"\s*\]")
IMAGE_FIELDS = ("image", "images", "image_path", "image_paths", "image_file", "image_files")
"""Where an entry names its photos, one name or a list of names."""
_OTHER_MEDIA = ("video", "videos", "video_path", "video_paths", "audio", "audios")
_MEDIA = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|mp4|avi|mov|mkv|webm|wav|mp3|flac)$", re.IGNORECASE)
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


def find_image_names(row: Mapping[str, Any]) -> list[str] | str:
    """The photos that an entry names, or why it cannot be used.

    Returns:
        Names as they came, [] for an entry about no photo; else a reason: video, audio (not read here),
        several_image_fields (they disagree), bad_image_name (no text), image_in_another_field (a file is named where
        no photo is read from).
    """
    other = next((name for name in _OTHER_MEDIA if row.get(name)), None)
    if other is not None:
        return "audio" if other.startswith("audio") else "video"
    given = [_as_list(row[name]) for name in IMAGE_FIELDS if row.get(name) not in (None, "", [])]
    if not given:
        elsewhere = [value for name, value in row.items() if name not in ("id", "conversations", "messages")]
        return "image_in_another_field" if any(map(_is_media, elsewhere)) else []
    if any(names != given[0] for names in given):
        return "several_image_fields"
    if not all(is_text(name) and name for name in given[0]):
        return "bad_image_name"
    return list(given[0])


def _as_list(value: object) -> list[object]:
    """One name or several; a table of Hugging Face's `datasets` has {path, bytes}."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [one.get("path") if isinstance(one, Mapping) else one for one in values]


def _is_media(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(_is_media, value))
    return isinstance(value, str) and len(value) < 4096 and _MEDIA.search(value) is not None


def find_turns(row: Mapping[str, Any]) -> object:
    """The turns of an entry as {from, value}, whatever names it gives them; what is no list of turns comes as it is."""
    turns = row.get("conversations", row.get("messages"))
    if not isinstance(turns, list):
        return turns
    return [
        {"from": turn.get("from", turn.get("role")), "value": turn.get("value", turn.get("content"))}
        if isinstance(turn, Mapping) and not ("from" in turn and "value" in turn)
        else turn
        for turn in turns
    ]


def read_conversation(row: Mapping[str, Any]) -> Conversation | str:
    """One entry, or why it cannot be used: no_image, several_images, bad_row, or a reason of `find_image_names`.

    A round speaks of one box where its question ends with the box and its answer has none (the answer is the phrase),
    or where the answer is the box alone (the phrase is what the question says behind its last colon).
    """
    names, turns = find_image_names(row), find_turns(row)
    if isinstance(names, str):
        return "bad_row" if names == "bad_image_name" else names
    if len(names) != 1:
        return "several_images" if names else "no_image"
    image = names[0]
    if not isinstance(turns, list) or not all(map(_is_turn, turns)):
        return "bad_row"
    texts = [(turn["from"], " ".join(turn["value"].replace("<image>", " ").split())) for turn in turns]
    rounds = [(q, a) for (who, q), (other, a) in itertools.pairwise(texts) if who in _ASKS and other in _TELLS]
    found = [find_spoken_box(question, answer) for question, answer in rounds]
    alone = rounds[0] if len(rounds) == 1 else ("[0, 0, 1, 1]", "")
    caption = alone[1] if not _BOX.search(" ".join(alone)) and len(alone[1].split()) >= _CAPTION_WORDS else ""
    return Conversation(image, caption, tuple(one for one in found if one is not None), _make_plain(turns))


def find_spoken_box(question: str, answer: str) -> tuple[tuple[float, ...], str] | None:
    """(box, phrase) of a round that speaks of one box, else None."""
    asked, answered = list(_BOX.finditer(question)), list(_BOX.finditer(answer))
    if len(asked) == 1 and not answered and not question[asked[0].end() :].strip(" .?!"):
        return _read_numbers(asked[0]), answer
    if not asked and len(answered) == 1 and not _BOX.sub("", answer).strip(" .") and ":" in question:
        return _read_numbers(answered[0]), question.rpartition(":")[2].strip().rstrip(".").strip()
    return None


def _read_numbers(match: re.Match[str]) -> tuple[float, ...]:
    return tuple(map(float, match.groups()))


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and is_text(turn.get("value")) and is_text(turn.get("from"))


def _make_plain(turns: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns as they came, without what is no plain value."""
    return [{k: v for k, v in turn.items() if is_text(v) or type(v) in (int, bool)} for turn in turns]
