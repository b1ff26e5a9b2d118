"""The card beside the shards (`dataset.json`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cloc.disk import write_text
from cloc.files import read_object

CARD = "dataset.json"
KINDS = ("pairs", "regions", "detection", "grounding")
MOST_SAMPLES = 10_000_000
"""Samples in one shard; a card that says more is damaged."""

_Count = Annotated[int, Field(ge=0)]


class _Lenient(BaseModel):
    """Further fields are let through; those that are known are of their type and no other."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Shard(_Lenient):
    file: str
    samples: Annotated[int, Field(ge=0, le=MOST_SAMPLES)]
    sha256: str | None = None

    @field_validator("file")
    @classmethod
    def _inside(cls, name: str) -> str:
        if name != Path(name).name or name in ("", "..") or "\0" in name:
            raise ValueError("expected a name without folders")
        return name


class _Category(_Lenient):
    id: int
    name: str
    definition: str | None = None
    frequency: str | None = None


class _Card(_Lenient):
    """What of a card is read anywhere."""

    version: Literal[1] = Field(1, alias="schema")
    name: str | None = None
    kind: Literal["pairs", "regions", "detection", "grounding"] | None = None
    licence: str | None = None
    rendered: bool = False
    made: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, _Count] = Field(default_factory=dict)
    dropped: dict[str, _Count] = Field(default_factory=dict)
    categories: list[_Category] = Field(default_factory=list)
    shards: list[_Shard] = Field(default_factory=list)


@dataclass(frozen=True)
class ShardEntry:
    """What a card says about one shard.

    Attributes:
        file: name of the tar inside its folder.
        samples: how many samples it holds.
        sha256: of the tar's bytes.
        counts: samples, captions and regions inside.
        dropped: regions that the samples had lost before they were written, by reason.
    """

    file: str
    samples: int
    sha256: str
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def read_card(folder: Path) -> dict[str, Any] | None:
    """The `dataset.json` of a shard folder, None where there is none. Fields that nobody here knows are in it too.

    Raises:
        ValueError: the card is no JSON object, or a field is of another type than it should be; the field is named.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    hint = "copy it again, or make the set again"
    card = read_object(path, "the card of a set", hint)
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "missing" else f", got {str(first['input'])[:80]!r}"
        raise ValueError(f"{path}: {field_name}: {problem}{got}; {hint}") from None
    return card


def complete_card(card: Mapping[str, Any], entries: list[ShardEntry]) -> dict[str, Any]:
    """The card with what the shards add to it: counts, dropped, and the list of shards."""
    counts, dropped = Counter[str](samples=0, captions=0, regions=0), Counter[str](card.get("dropped", {}))
    for entry in entries:
        counts.update(entry.counts)
        dropped.update(entry.dropped)
    shards = [{"file": entry.file, "samples": entry.samples, "sha256": entry.sha256} for entry in entries]
    tail = {"counts": dict(counts), "dropped": dict(sorted((+dropped).items())), "shards": shards}
    return {"schema": 1, **{k: v for k, v in card.items() if k not in tail}, **tail}


def find_made(out: Path, made: Mapping[str, Any]) -> dict[str, Any] | None:
    """The card of `out` where it is there and was made in the same way, None where `out` is free.

    Args:
        out: folder of the set.
        made: the card's `made` field: whatever decides the content.

    Raises:
        ValueError: `out` holds something else, which is never overwritten.
    """
    card = read_card(out) if out.is_dir() else None
    if card is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} exists and has no {CARD}: it is not overwritten; give another --out or remove it")
        return None
    there = card.get("made", {})
    if there != json.loads(json.dumps(made)):
        different = sorted(key for key in {*there, *made} if there.get(key) != made.get(key))
        raise ValueError(
            f"{out} was made with other parameters (different: {', '.join(different)}); "
            "it is not overwritten; give another --out or remove it"
        )
    return card


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card of a set, which is the last of its files."""
    write_text(folder / CARD, json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
