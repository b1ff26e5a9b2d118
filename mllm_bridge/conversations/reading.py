"""Conversations with images, in LLaVA's layout: JSON list or JSON lines in, checked `Conversation`s out.

One entry is `{"id", "image": NAME | [NAMES], "conversations": [{"from": "human" | "gpt" | "system", "value"}],
"regions"?: [[x0, y0, x1, y1], ...]}`; the names that other tools give to these fields are read too
(`cloc.formats.llava`). `<image>` in a human's turn stands for an image; where no turn holds one, the images stand
before the first question. `<region>` in any turn stands for the next of `regions` (xyxy pixels of the original image;
`{"box": [...], "image": N}` where there are several images).
An entry that cannot be used is left out and counted by reason.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloc.files import read_json
from cloc.formats.llava import IMAGE_FIELDS, find_image_names, find_turns
from cloc.formats.rows import read_json_rows
from cloc.structures import Box, DataError

IMAGE, REGION = "<image>", "<region>"
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""`http:`, `data:`, `s3:`, and with one letter a drive of another machine."""
Role = Literal["system", "user", "assistant"]
ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says.

    Attributes:
        role: system, user or assistant.
        text: with `<image>` and `<region>` where they stood.
    """

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ImageRegion:
    """What a `<region>` stands for: a box (xyxy, pixels of the original) on one of the conversation's images."""

    box: Box
    image: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns about images; whoever makes one has proven it.

    Attributes:
        key: its id.
        images: files of the images, in the order of their `<image>`.
        turns: an optional system turn, then user and assistant in turn, the assistant last.
        regions: one for each `<region>`, in order.
        extras: the entry's other fields, kept as they came.
    """

    key: str
    images: tuple[Path, ...]
    turns: tuple[Turn, ...]
    regions: tuple[ImageRegion, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spoken = [turn for turn in self.turns if turn.role != "system"]
        if any(turn.role == "system" for turn in self.turns[1:]):
            raise DataError("system_turn_late", f"{self.key}: expected a system turn at the start only")
        if not spoken or spoken[0].role != "user":
            raise DataError("no_question", f"{self.key}: expected a human's turn first")
        for before, after in itertools.pairwise(spoken):
            if before.role == after.role:
                raise DataError(
                    f"two_{after.role}s_in_a_row", f"{self.key}: expected human and gpt in turn, got two {after.role}s"
                )
        if spoken[-1].role != "assistant":
            raise DataError("no_answer", f"{self.key}: expected an answer at the end")
        if any(turn.role == "assistant" and not turn.text.strip() for turn in spoken):
            raise DataError("empty_answer", f"{self.key}: expected an answer with a text")
        self._check_markers()

    def _check_markers(self) -> None:
        if any(IMAGE in turn.text for turn in self.turns if turn.role != "user"):
            raise DataError("image_in_answer", f"{self.key}: expected {IMAGE} in a human's turn only")
        images = sum(turn.text.count(IMAGE) for turn in self.turns)
        if images != len(self.images):
            raise DataError("image_markers", f"{self.key}: {len(self.images)} images, {images} times {IMAGE}")
        markers = sum(turn.text.count(REGION) for turn in self.turns)
        if markers != len(self.regions):
            more = "more_regions_than_placeholders" if len(self.regions) > markers else "placeholder_without_region"
            raise DataError(more, f"{self.key}: {len(self.regions)} regions, {markers} times {REGION}")
        for region in self.regions:
            if not 0 <= region.image < max(len(self.images), 1) or not self.images:
                raise DataError(
                    "region_without_image", f"{self.key}: a region of image {region.image}, which is not there"
                )

    @property
    def words(self) -> int:
        """Words of all turns, the measure by which batches are grouped."""
        return sum(len(turn.text.split()) for turn in self.turns)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], images: Path) -> Conversation:
        """Read one entry.

        Raises:
            DataError: it cannot be used.
        """
        key = str(entry.get("id", entry.get("question_id", "")))
        files = _files(entry, images, key)
        turns = _turns(find_turns(entry), key)
        if files and not any(IMAGE in turn.text for turn in turns):
            first = next((n for n, turn in enumerate(turns) if turn.role == "user"), 0)
            turns[first] = Turn(turns[first].role, f"{IMAGE}\n" * len(files) + turns[first].text)
        given = entry.get("regions") or []
        if not isinstance(given, list):
            raise DataError("bad_region", f"{key}: expected a list of regions in 'regions', got {given!r:.80}")
        regions = tuple(_parse_region(region, key) for region in given)
        known = ("id", *IMAGE_FIELDS, "conversations", "messages", "regions")
        return cls(key, files, tuple(turns), regions, {k: v for k, v in entry.items() if k not in known})


def _files(entry: Mapping[str, Any], folder: Path, key: str) -> tuple[Path, ...]:
    names = find_image_names(entry)
    if isinstance(names, str):
        others = {name: value for name, value in entry.items() if name not in ("id", "conversations", "messages")}
        raise DataError(
            names, f"{key}: expected the name of an image or a list of names in 'image', got {others!r:.200}"
        )
    names = [name.removeprefix("file://").replace("\\", "/") for name in names]
    for name in names:
        if found := _ELSEWHERE.match(name):
            reason = "windows_drive" if len(found[0]) == 2 else "image_url"
            raise DataError(reason, f"{key}: expected a file's name below the folder of images, got {name:.200}")
    try:
        files = tuple(folder / name for name in names)
        missing = next((file for file in files if not file.is_file()), None)
    except (OSError, ValueError) as error:  # too long for a file's name, a zero byte
        raise DataError("bad_image_name", f"{key}: {error}") from error
    if missing is not None:
        raise DataError("missing_image", f"{key}: there is no image {missing}")
    return files


def _turns(entries: object, key: str) -> list[Turn]:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError("no_conversation", f"{key}: expected a list of turns in 'conversations', got {entries!r:.80}")
    turns = []
    for entry in entries:
        role, text = ROLES.get(str(entry.get("from"))), entry.get("value")
        if role is None:
            raise DataError("unknown_role", f"{key}: expected from: human, gpt or system, got {entry.get('from')!r}")
        if not isinstance(text, str):
            raise DataError("bad_text", f"{key}: expected a text in 'value', got {text!r}")
        turns.append(Turn(role, text))
    return turns


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _parse_region(region: object, key: str) -> ImageRegion:
    box, image = (region.get("box"), region.get("image", 0)) if isinstance(region, Mapping) else (region, 0)
    numbers = isinstance(box, (list, tuple)) and len(box) == 4 and all(_is_number(v) for v in box)
    if not numbers or box[2] <= box[0] or box[3] <= box[1] or not isinstance(image, int):
        raise DataError("bad_region", f"{key}: expected a region [x0, y0, x1, y1] in pixels, got {region!r}")
    return ImageRegion(tuple(float(value) for value in box), image)


@dataclass(frozen=True)
class ConversationSet:
    """What a file holds.

    Attributes:
        conversations: those that can be used.
        skipped: entries left out, by reason.
        example: for each reason the first message.
    """

    conversations: tuple[Conversation, ...]
    skipped: Counter[str]
    example: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.conversations)


def read_conversations(file: str | Path, images: str | Path | None = None) -> ConversationSet:
    """Read a JSON list or JSON lines of conversations.

    Args:
        file: ends in .json or .jsonl.
        images: folder of the images; None: the file's own folder.

    Raises:
        ValueError: there is no such file, it is no such list, or not one entry can be used.
    """
    file = Path(file)
    folder = file.parent if images is None else Path(images)
    found, skipped, example = list[Conversation](), Counter[str](), dict[str, str]()
    for entry in _entries(file, skipped):
        try:
            found.append(Conversation.from_json(entry, folder))
        except DataError as error:
            skipped[error.reason] += 1
            example.setdefault(error.reason, str(error))
    if not found:
        reasons = "; ".join(f"{reason} {count}" for reason, count in sorted(skipped.items())) or "it is empty"
        first = next(iter(example.values()), "")
        raise ValueError(f"{file}: not one conversation that can be used ({reasons}). {first}".rstrip())
    return ConversationSet(tuple(found), skipped, example)


def _entries(file: Path, skipped: Counter[str]) -> Iterator[Mapping[str, Any]]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; expected conversations in LLaVA's JSON or JSON lines")
    if file.suffix == ".jsonl":
        yield from read_json_rows(file, skipped)
        return
    # half of an emoji in one answer is no reason to refuse the others
    content = read_json(file, "conversations", "name a file of JSON lines .jsonl", 1 << 32, replace_halves=True)
    if not isinstance(content, list):
        raise ValueError(f"{file}: expected a JSON list of conversations, got {type(content).__name__}")
    for entry in content:
        if isinstance(entry, Mapping):
            yield entry
        else:
            skipped["bad_row"] += 1


def describe_skips(skipped: Mapping[str, int]) -> str:
    """Counts by reason as text."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items())) or "none"
