"""The folder of a job on its way. A shard is finished when its report lies beside it; the card comes last.

`OUT` appears under its name when every shard is there. Until then the work lies in `.OUT.labelling`: NNNNNN.tar and
NNNNNN.json for each finished shard, each written elsewhere first and then renamed. A job that was killed leaves only
finished shards and scraps, and the scraps are thrown away by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloc.data.shards import CARD, ShardEntry, ShardSet, locked, read_card, write_shard
from cloc.files import read_object
from cloc.label.shard import Labeller, Tally

JOB = "job.json"


class DiskFullError(ValueError):
    """There was no room for a shard; the finished ones stay, and the same command goes on with them."""


class WorkFolder:
    """Where one job writes; see the head of this file."""

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.path = self.out.with_name(f".{self.out.name}.labelling")

    @contextlib.contextmanager
    def opened(self, made: Mapping[str, Any]) -> Iterator[None]:
        """Begin a job, or go on with an interrupted one that was to make the same.

        Raises:
            ValueError: another job is at work here, or the interrupted one had other parameters.
        """
        busy = f"{self.out}: another labelling job is writing it; wait for it, or end it"
        with locked(self.path, busy):
            self._agree(json.loads(json.dumps(made)))
            self._throw_scraps_away()
            try:
                yield
            finally:
                self._throw_scraps_away()

    def _throw_scraps_away(self) -> None:
        for scraps in self.path.glob("writing-*"):
            shutil.rmtree(scraps, ignore_errors=True)  # a worker that outlives its job by a moment may write in it

    def _agree(self, made: dict[str, Any]) -> None:
        path, card = self.path / JOB, self.finished_card()
        if card is None and not path.is_file():
            _write_whole(path, made)
            return
        there = card.get("made", {}) if card else read_object(path, "an unfinished job", "remove that folder")
        different = sorted(key for key in {*there, *made} if there.get(key) != made.get(key))
        if different:
            raise ValueError(
                f"{self.path} holds an unfinished job with other parameters (different: {', '.join(different)}); "
                f"go on with those, give another --out, or remove that folder"
            )

    def reports(self) -> dict[int, dict[str, Any]]:
        """The reports of the finished shards, by number."""
        found = sorted(path for path in self.path.glob("[0-9]*.json") if path.with_suffix(".tar").is_file())
        return {int(path.stem): read_object(path, "the report of a shard", "remove it and its tar") for path in found}

    def finish(self, card: Mapping[str, Any]) -> None:
        """Write the card, clear the folder of everything but shards and card, and give it its name.

        A kill in between leaves the card, which tells the next job that only the clearing is left.
        """
        _write_whole(self.path / CARD, card, indent=1)
        self.clear(card)

    def finished_card(self) -> dict[str, Any] | None:
        """The card, where a job was killed after it had written it."""
        return read_card(self.path)

    def clear(self, card: Mapping[str, Any]) -> None:
        """Everything but the card and its shards goes, then the folder gets its name."""
        kept = {CARD, *(entry["file"] for entry in card["shards"])}
        for path in self.path.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.out.is_dir():
            self.out.rmdir()  # empty: a full one was refused before
        os.replace(self.path, self.out)


def label_one(
    folder: Path, shards: ShardSet, number: int, labeller: Labeller, advance: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Label shard `number` into a work folder: the tar first, then its report; each appears whole.

    Args:
        folder: the work folder.
        shards: the image-text shards.
        number: which of them.
        labeller: loaded models.
        advance: told after each batch how many samples it had.

    Returns:
        Seconds spent in the models and in all.

    Raises:
        DiskFullError: there is no room for it; nothing of it is left.
    """
    # a process that outlived its job must not write into another's file, nor one of another machine of a cluster
    own = folder / f"writing-{platform.node()}-{os.getpid()}"
    tally, name = Tally(), f"{number:06d}"
    try:
        own.mkdir(exist_ok=True)
        entry = write_shard(own / f"{name}.tar", labeller.samples(shards, number, tally, advance))
        report = {"samples": entry.samples, "sha256": entry.sha256, "counts": entry.counts, "read": tally.read}
        report |= {"dropped": +tally.dropped, "sums": tally.sums}
        _write_whole(own / f"{name}.json", report)
    except OSError as error:
        shutil.rmtree(own, ignore_errors=True)  # so that the disk is not full for the others of the job as well
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFullError(_disk_full(folder, shards)) from error
    for ending in ("tar", "json"):
        os.replace(own / f"{name}.{ending}", folder / f"{name}.{ending}")
    return dict(tally.seconds)


def needed_bytes(shards: ShardSet, numbers: Iterable[int]) -> int:
    """About how much disk these shards take with labels, which add little to the images."""
    return int(1.02 * sum(shards.shards[number].stat().st_size for number in numbers))


def _disk_full(folder: Path, shards: ShardSet) -> str:
    to_come = [number for number in range(len(shards.shards)) if not (folder / f"{number:06d}.json").is_file()]
    free = shutil.disk_usage(folder).free
    return (
        f"{folder}: the disk is full; the {len(to_come):,} shards to come take about "
        f"{needed_bytes(shards, to_come) / 1e9:,.3g} GB, {free / 1e9:,.3g} GB are free. Make room and give the same "
        "command again: what is finished stays"
    )


def entry_of(number: int, report: Mapping[str, Any]) -> ShardEntry:
    """What the card says about a finished shard."""
    counts, dropped = Counter(report["counts"]), Counter(report["dropped"])
    return ShardEntry(f"{number:06d}.tar", report["samples"], report["sha256"], counts, dropped)


def _write_whole(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    temporary = path.with_name(f"{path.name}.part")
    text = json.dumps(content, ensure_ascii=False, indent=indent, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)
