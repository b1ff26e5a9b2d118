"""The card beside the shards (`dataset.json`), and folders that appear only when they are whole."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CARD = "dataset.json"
KINDS = ("pairs", "regions", "detection", "grounding")


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
    """The `dataset.json` of a shard folder, None where there is none.

    Raises:
        ValueError: the card is no JSON object.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a JSON card, got text that cannot be read ({error}); make the set again"
        ) from error
    if not isinstance(card, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(card).__name__}; make the set again")
    return card


def full_card(card: Mapping[str, Any], entries: list[ShardEntry]) -> dict[str, Any]:
    """The card with what the shards add to it: counts, dropped, and the list of shards."""
    counts, dropped = Counter[str](samples=0, captions=0, regions=0), Counter[str](card.get("dropped", {}))
    for entry in entries:
        counts.update(entry.counts)
        dropped.update(entry.dropped)
    shards = [{"file": entry.file, "samples": entry.samples, "sha256": entry.sha256} for entry in entries]
    tail = {"counts": dict(counts), "dropped": dict(sorted((+dropped).items())), "shards": shards}
    return {"schema": 1, **{k: v for k, v in card.items() if k not in tail}, **tail}


def already_made(out: Path, made: Mapping[str, Any]) -> dict[str, Any] | None:
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


@dataclass
class Staging:
    """A folder in the making, beside the one it becomes. What an interrupted run left in it is thrown away."""

    out: Path

    def __post_init__(self) -> None:
        self.folder = self.out.with_name(f".{self.out.name}.part")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def finish(self, card: Mapping[str, Any], file: str = CARD) -> None:
        """Write the card last, then give the folder its name."""
        text = json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False)
        (self.folder / file).write_text(text + "\n", encoding="utf-8")
        if self.out.is_dir():
            self.out.rmdir()  # empty: `already_made` refuses any other
        os.replace(self.folder, self.out)
