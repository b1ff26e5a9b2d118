"""What every conversion is: inputs named by their hash, a card, drafts, shards; or the set that is there already.

Shard k holds what can be used of drafts k * size to (k + 1) * size - 1, so its bytes do not depend on the number of
processes, nor on what was there before. Where nothing of them can be used there is no shard k. A shard exists whole or
not at all; a killed conversion goes on.
"""

from __future__ import annotations

import errno
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

from tqdm import tqdm

from cloc.convert.drafts import Draft, finish_drafts
from cloc.convert.losses import find_largest_loss
from cloc.data.shards import ShardEntry, find_made
from cloc.data.shards.card import complete_card
from cloc.formats.layouts import describe_other_layout
from cloc.jobs import ShardJob, UnfinishedError, count_cores, make_entry, run_tasks

_TEXT_BYTES = 4096
"""What a sample takes in a shard beside its photo: headers, padding, JSON and caption."""


class LossError(UnfinishedError):
    """Too much was lost for one reason.

    Attributes:
        card: of the set as it would be.
    """

    def __init__(self, message: str, card: dict[str, Any]) -> None:
        super().__init__(message)
        self.card = card


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
    """What every converter takes beside its inputs and `out`; see `Conversion` for the defaults.

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
        there = find_made(self.out, self.made)
        if there is not None:
            return there
        reading = Reading()
        card: dict[str, Any] = {"name": self.name, "kind": self.kind, "rendered": self.rendered}
        card |= {"licence": self.licence, "made": self.made, "read": reading.read, "dropped": reading.dropped}
        reading.card.update(card)
        drafts = _start(read(reading))
        workers = self.workers if self.workers is not None else count_cores()
        job, count = ShardJob(self.out), total() if total is not None else None
        busy = f"{self.out}: another conversion is writing it; wait for it, or end it"
        with job.opened(self.made, busy) as there:
            if there is not None:
                return there
            reports = _write_shards(drafts, job, self.shard_size, workers, count, self.progress)
            card = self._card(str(where), reading, reports, job)
            job.finish(card)
        return card

    def _card(
        self, where: str, reading: Reading, reports: Mapping[int, Mapping[str, Any]], job: ShardJob
    ) -> dict[str, Any]:
        """The card of the whole set.

        Raises:
            ValueError: no draft can be used.
            LossError: too much is lost. Whole shards stay, and the same command goes on with them.
        """
        entries = [make_entry(number, report) for number, report in reports.items()]
        examples = dict(reading.examples)
        for report in reports.values():
            examples = report["examples"] | examples
        card = complete_card(reading.card, [entry for entry in entries if entry.samples])
        card["dropped"] = _sum_dropped(reading.card, entries)
        if not card["shards"]:
            job.remove()
            raise ValueError(_describe_nothing_usable(where, card["dropped"], examples, self.format))
        loss = find_largest_loss(card, examples)
        if loss is not None and loss.ends and not self.allow_losses:
            raise LossError(
                f"{where}: {loss}. That is more than a tenth: mend the file, or give the same command with "
                "--allow-losses, which goes on with the finished shards",
                card,
            )
        return card

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


def _start(drafts: Iterator[Draft]) -> Iterator[Draft]:
    """The same drafts; the first is taken now, so that a mistake in the input is told before anything is written."""
    first = next(drafts, None)
    return _chain(first, drafts) if first is not None else iter(())


def _chain(first: Draft, rest: Iterator[Draft]) -> Iterator[Draft]:
    yield first
    yield from rest


def _write_shards(
    drafts: Iterator[Draft], job: ShardJob, size: int, workers: int, total: int | None, progress: bool
) -> dict[int, dict[str, Any]]:
    """The reports of all shards in their order, of those too that an interrupted conversion left.

    Whatever ends it, finished shards stay: only the card, written last, makes a set of them.
    """
    chunks = enumerate(iter(lambda: list(itertools.islice(drafts, size)), []))
    first = next(chunks, None)
    if first is None:
        return {}
    _refuse_small_disk(job, first[1], total)
    second = next(chunks, None)
    if second is None:
        workers = 1
    reports: dict[int, dict[str, Any]] = {}
    tasks = itertools.chain([first], [] if second is None else [second], chunks)
    try:
        with tqdm(total=total, desc="copying photos", unit="image", disable=not progress) as bar:
            for number, report, count in run_tasks(partial(write_one, job), tasks, workers, job.out):
                reports[number] = report
                bar.update(count)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UnfinishedError(_describe_full_disk(job, len(reports), total, size)) from error
    return dict(sorted(reports.items()))


def write_one(job: ShardJob, number: int, drafts: list[Draft]) -> tuple[int, dict[str, Any], int]:
    """Write one shard; (its number, its report, how many drafts there were)."""
    lost, examples = Counter[str](), dict[str, str]()
    report = job.write(number, finish_drafts(drafts, lost, examples), lost, lambda: {"examples": examples})
    return number, report, len(drafts)


def _describe_nothing_usable(
    where: str, dropped: Mapping[str, int], examples: Mapping[str, str], converter: str
) -> str:
    why = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items()) or "it is empty"
    largest = max(examples, key=lambda reason: dropped.get(reason, 0), default=None)
    first = f"first: {examples[largest]}; " if largest is not None else ""
    other = describe_other_layout(Path(where), converter)
    return f"{where}: expected at least one usable image, found none ({why}); {first}check it and --images{other}"


def _sum_dropped(card: Mapping[str, Any], entries: list[ShardEntry]) -> dict[str, int]:
    """Shards of which nothing could be used have lost something as well."""
    dropped = Counter(card["dropped"])
    for entry in entries:
        dropped.update(entry.dropped)
    return dict(sorted((+dropped).items()))


def _refuse_small_disk(job: ShardJob, first: list[Draft], total: int | None) -> None:
    """From the photos of the first shard: how much the whole set will take, against what is free."""
    lengths = [draft.photo.length() for draft in first if draft.photo is not None]
    needed = int((sum(lengths) / max(1, len(lengths)) + _TEXT_BYTES) * (total if total is not None else len(first)))
    there = sum(path.stat().st_size for path in job.folder.glob("*.tar"))
    free = shutil.disk_usage(job.folder).free
    if needed - there > free:
        if not there:
            job.remove()
        raise UnfinishedError(
            f"{job.out}: expected about {_format_gigabytes(needed - there)} of free disk for its shards, found "
            f"{_format_gigabytes(free)}; make room, or give another --out"
        )


def _describe_full_disk(job: ShardJob, count: int, total: int | None, size: int) -> str:
    there = sum(path.stat().st_size for path in job.folder.glob("*.tar"))
    shards = max(1, count)
    wanted = (
        f"about {_format_gigabytes(int(there / shards * (total / size - shards)))} more"
        if total and there
        else "more room"
    )
    return (
        f"{job.out}: the disk is full after {count} shards ({_format_gigabytes(there)}); it takes {wanted}. Make "
        f"room and give the same command again: it goes on with the whole shards, which lie in {job.folder}"
    )


def _format_gigabytes(count: int) -> str:
    return f"{max(0, count) / 1e9:,.3g} GB"
