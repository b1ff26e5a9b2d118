"""What every conversion is: inputs named by their hash, a card, drafts, shards; or the set that is there already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

from cloc.convert.drafts import Draft
from cloc.convert.writing import write_drafts
from cloc.data.shards import already_made
from cloc.jobs import count_cores


class _Counted(Protocol):
    """An annotation file that knows how many images it lists."""

    @property
    def images(self) -> int:
        """How many."""


Stream = TypeVar("Stream", bound=_Counted)


@dataclass(frozen=True)
class Reading:
    """What a reader fills while its drafts are taken.

    Attributes:
        read: what the files hold, by kind.
        dropped: what was left out before any photo was read, by reason.
        card: further fields of the card, such as `categories`.
        examples: the first message of a reason.
    """

    read: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    card: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)


class Making(TypedDict, total=False):
    """What every converter may be told beside its inputs; see `Conversion` for the defaults.

    Attributes:
        name: of the set, for its card.
        licence: text for the card.
        shard_size: samples a shard.
        workers: processes, None for as many as there are cores.
        progress: show a bar.
        allow_losses: finish although more than a tenth of the boxes or images is lost for one reason.
    """

    name: str
    licence: str
    shard_size: int
    workers: int | None
    progress: bool
    allow_losses: bool


@dataclass(frozen=True)
class Conversion:
    """One conversion.

    Attributes:
        format: name of the converter.
        version: raised when equal input gives other shards than before.
        out: folder to make; one that is there and was made from the same inputs is left alone.
        inputs: whatever decides the content, such as the hashes of the files.
        kind: of the card.
        name: of the set, for its card; empty for that of the converter.
        licence: text for the card.
        shard_size: drafts a shard; samples, where every photo can be used.
        workers: processes, None for as many as there are cores.
        progress: show a bar.
        rendered: whether the photos are rendered scenes.
        allow_losses: finish although more than a tenth of the boxes or images is lost for one reason.
    """

    format: str
    version: int
    out: Path
    inputs: Mapping[str, Any]
    kind: str
    name: str = ""
    licence: str = "as the annotation file says"
    shard_size: int = 1000
    workers: int | None = None
    progress: bool = True
    rendered: bool = False
    allow_losses: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.format)
        if self.shard_size < 1:
            raise ValueError(f"--shard-size: expected at least 1, got {self.shard_size}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers: expected at least 1, got {self.workers}")

    @property
    def made(self) -> dict[str, Any]:
        """The card's field that tells how the set was made. The number of processes is no part of it."""
        head = {"by": f"cloc.data.convert {self.format}", "converter": self.version}
        return {**head, **self.inputs, "name": self.name, "shard_size": self.shard_size}

    def run(
        self, where: Path | str, read: Callable[[Reading], Iterator[Draft]], total: Callable[[], int] | None = None
    ) -> dict[str, Any]:
        """Convert, or give the card of the set that is there.

        Args:
            where: what is read, for messages.
            read: gives the drafts, in the order of the samples. Called only where the set is to be made.
            total: how many drafts there will be, where that is known; called after the first one.

        Returns:
            The card; `dropped` counts by reason what was left out (photos as `image_...`).

        Raises:
            ValueError: an input cannot be read, nothing in it can be used, or `out` holds something else.
        """
        there = already_made(self.out, self.made)
        if there is not None:
            return there
        reading = Reading()
        card: dict[str, Any] = {"name": self.name, "kind": self.kind, "rendered": self.rendered}
        card |= {"licence": self.licence, "made": self.made, "read": reading.read, "dropped": reading.dropped}
        reading.card.update(card)
        drafts = _started(read(reading))
        workers = self.workers if self.workers is not None else count_cores()
        count = total() if total is not None else None
        return write_drafts(
            drafts,
            self.out,
            reading.card,
            str(where),
            self.shard_size,
            workers,
            count,
            self.progress,
            self.allow_losses,
            reading.examples,
        )

    def run_stream(
        self,
        where: Path | str,
        opened: Callable[[], Stream],
        drafts: Callable[[Stream, Reading], Iterator[Draft]],
        limit: int | None = None,
    ) -> dict[str, Any]:
        """As `run`, for one annotation file with a draft for each of its images; it is opened only where it is needed.

        Args:
            where: what is read, for messages.
            opened: opens the file.
            drafts: gives its drafts.
            limit: only the first so many drafts; None for all. The caller names it among the inputs.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"--limit: expected at least 1, got {limit}")
        streams: list[Stream] = []

        def read(reading: Reading) -> Iterator[Draft]:
            streams.append(opened())
            return islice(drafts(streams[0], reading), limit)

        def total() -> int:
            return streams[0].images if limit is None else min(limit, streams[0].images)

        return self.run(where, read, total)


def _started(drafts: Iterator[Draft]) -> Iterator[Draft]:
    """The same drafts; the first is taken now, so that a mistake in the input is told before anything is written."""
    first = next(drafts, None)
    return _chained(first, drafts) if first is not None else iter(())


def _chained(first: Draft, rest: Iterator[Draft]) -> Iterator[Draft]:
    yield first
    yield from rest
