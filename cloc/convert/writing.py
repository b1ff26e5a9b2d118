"""Drafts become shards on several processes. A shard exists whole or not at all; a killed conversion goes on.

Shard k holds what can be used of drafts k * size to (k + 1) * size - 1, so its bytes do not depend on the number of
processes, nor on what was there before. Where nothing of them can be used there is no shard k.

Until the set is whole its shards lie in `.OUT.part`: NNNNNN.tar, and NNNNNN.json which says that it is finished.
"""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.convert.drafts import Draft, finished
from cloc.convert.losses import largest_loss
from cloc.data.shards import CARD, LOCK, ShardEntry, locked, write_shard
from cloc.data.shards.card import full_card
from cloc.formats.layouts import other_layout
from cloc.workers import leave_interrupts_to_parent

MADE = "made.json"
_WATCH_SECONDS = 0.5
_TEXT_BYTES = 4096
"""What a sample takes in a shard beside its photo: headers, padding, JSON and caption."""


class UnfinishedError(ValueError):
    """The conversion ended early, and the same command goes on with the shards that are whole."""


class LossError(UnfinishedError):
    """Too much was lost for one reason.

    Attributes:
        card: of the set as it would be.
    """

    def __init__(self, message: str, card: dict[str, Any]) -> None:
        super().__init__(message)
        self.card = card


@dataclass(frozen=True)
class Finished:
    """A shard that is whole.

    Attributes:
        entry: what the card says of it.
        examples: the first message of each reason for which one of its photos was left out.
    """

    entry: ShardEntry
    examples: dict[str, str]


@dataclass(frozen=True)
class Workplace:
    """The folder in which a set is in the making.

    Attributes:
        out: the folder that it becomes.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Where the shards lie until then."""
        return self.out.with_name(f".{self.out.name}.part")

    def begin(self, made: Mapping[str, Any]) -> None:
        """Take up what an interrupted conversion of the same left; throw anything else away. The lock is held."""
        path, told = self.folder / MADE, json.dumps(made, sort_keys=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != told:
            for other in self.folder.iterdir():
                if other.name != LOCK:
                    shutil.rmtree(other) if other.is_dir() else other.unlink()
            path.write_text(told, encoding="utf-8")
        for scraps in self.folder.glob("writing-*"):
            shutil.rmtree(scraps)

    def clear(self) -> None:
        """Remove everything."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def finished(self, number: int) -> Finished | None:
        """What is known of a finished shard, None where it is not finished."""
        report, tar = (self.folder / f"{number:06d}.{ending}" for ending in ("json", "tar"))
        if not report.is_file():
            return None
        told = json.loads(report.read_text(encoding="utf-8"))  # ours; a cut one never got its name
        if told["bytes"] != (tar.stat().st_size if tar.is_file() else 0):
            return None
        counts, dropped = Counter(told["counts"]), Counter(told["dropped"])
        entry = ShardEntry(told["file"], told["samples"], told["sha256"], counts, dropped)
        return Finished(entry, told.get("examples", {}))

    def finish(self, card: Mapping[str, Any]) -> None:
        """The card is written last, then the folder gets its name."""
        text = json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False)
        for path in (*self.folder.glob("[0-9]*.json"), self.folder / MADE, self.folder / LOCK):
            path.unlink()
        for scraps in self.folder.glob("writing-*"):
            shutil.rmtree(scraps)
        (self.folder / CARD).write_text(text + "\n", encoding="utf-8")
        if self.out.is_dir():
            self.out.rmdir()  # empty: any other was refused
        os.replace(self.folder, self.out)


def write_drafts(
    drafts: Iterator[Draft],
    out: Path,
    card: Mapping[str, Any],
    where: str,
    shard_size: int = 1000,
    workers: int = 1,
    total: int | None = None,
    progress: bool = True,
    allow_losses: bool = False,
    examples: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write drafts as shards with a card.

    Args:
        drafts: in their order; may count into `card["dropped"]` and `card["read"]` until they end.
        out: folder to make; must be free.
        card: as for `write_shards`.
        where: what the drafts come from, for messages.
        shard_size: drafts a shard.
        workers: processes.
        total: how many drafts there are, where that is known: for the bar, and to tell how much disk they need.
        progress: show a bar.
        allow_losses: finish although more than a tenth is lost for one reason.
        examples: the first message of a reason, filled while drafts are taken.

    Raises:
        ValueError: no draft can be used, too much is lost (`LossError`), or the disk is too small. Whole shards stay,
            and the same command goes on with them. Or another conversion is writing there.
    """
    place = Workplace(Path(out))
    with locked(place.folder, f"{out}: another conversion is writing it; wait for it, or end it"):
        place.begin(card["made"])
        kept = _written(drafts, place, shard_size, workers, total, progress)
        entries = [one.entry for one in kept]
        told = dict(examples or {})
        for one in kept:
            told = one.examples | told
        whole = full_card(card, [entry for entry in entries if entry.samples])
        whole["dropped"] = _all_dropped(card, entries)
        if not whole["shards"]:
            place.clear()
            by = str(card["made"].get("by", "")).rpartition(" ")[2]
            raise ValueError(_nothing_usable(where, whole["dropped"], told, by))
        loss = largest_loss(whole, told)
        if loss is not None and loss.ends and not allow_losses:
            raise LossError(
                f"{where}: {loss}. That is more than a tenth: mend the file, or give the same command with "
                "--allow-losses, which goes on with the finished shards",
                whole,
            )
        place.finish(whole)
    return whole


def _written(
    drafts: Iterator[Draft], place: Workplace, size: int, workers: int, total: int | None, progress: bool
) -> list[Finished]:
    """The shards in their order, those that an interrupted conversion left among them.

    Whatever ends it, finished shards stay: only the card, written last, makes a set of them.
    """
    entries: dict[int, Finished] = {}
    try:
        with tqdm(total=total, desc="copying photos", unit="image", disable=not progress) as bar:
            for number, entry, seen in _entries(drafts, place, size, workers, total):
                entries[number] = entry
                bar.update(seen)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UnfinishedError(_disk_full(place, entries, total, size)) from error
    return [entries[number] for number in sorted(entries)]


def _nothing_usable(where: str, dropped: Mapping[str, int], examples: Mapping[str, str], converter: str) -> str:
    why = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items()) or "it is empty"
    largest = max(examples, key=lambda reason: dropped.get(reason, 0), default=None)
    first = f"first: {examples[largest]}; " if largest is not None else ""
    other = other_layout(Path(where), converter)
    return f"{where}: expected at least one usable image, found none ({why}); {first}check it and --images{other}"


def _all_dropped(card: Mapping[str, Any], entries: list[ShardEntry]) -> dict[str, int]:
    """Shards of which nothing could be used have lost something as well."""
    dropped = Counter(card["dropped"])
    for entry in entries:
        dropped.update(entry.dropped)
    return dict(sorted((+dropped).items()))


def _entries(
    drafts: Iterator[Draft], place: Workplace, size: int, workers: int, total: int | None
) -> Iterator[tuple[int, Finished, int]]:
    """(number, what is known of it, drafts in it) of each shard, in the order in which they are finished."""
    chunks = enumerate(iter(lambda: list(itertools.islice(drafts, size)), []))
    first = next(chunks, None)
    if first is None:
        return
    _refuse_small_disk(place, first[1], total)
    second = next(chunks, None)
    if workers > 1 and second is not None:
        yield from _in_parallel(itertools.chain([first, second], chunks), place, workers)
        return
    for number, chunk in itertools.chain([first], [] if second is None else [second], chunks):
        there = place.finished(number)
        yield number, there if there is not None else write_one(place, number, chunk), len(chunk)


def _in_parallel(
    chunks: Iterator[tuple[int, list[Draft]]], place: Workplace, workers: int
) -> Iterator[tuple[int, Finished, int]]:
    """Few chunks are under way at any time, so that memory does not grow with the set."""
    # forked: the children only copy, and starting them costs nothing
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, initializer=_leave_with, initargs=(os.getpid(),)) as pool:
        running: dict[Future[Finished], tuple[int, int]] = {}
        try:
            for number, chunk in chunks:
                there = place.finished(number)
                if there is not None:
                    yield number, there, len(chunk)
                    continue
                while len(running) >= 2 * workers:
                    yield from _done(running)
                running[pool.submit(write_one, place, number, chunk)] = (number, len(chunk))
            while running:
                yield from _done(running)
        except BrokenProcessPool as error:
            raise UnfinishedError(
                f"{place.out}: a worker process was ended from outside (out of memory?); whole shards are kept, the "
                "same command goes on; try fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _done(running: dict[Future[Finished], tuple[int, int]]) -> Iterator[tuple[int, Finished, int]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        number, seen = running.pop(future)
        yield number, future.result(), seen


def write_one(place: Workplace, number: int, drafts: list[Draft]) -> Finished:
    """Write one shard, then the report which says that it is finished."""
    own = place.folder / f"writing-{os.getpid()}"  # a process that outlived its job must not write where others do
    own.mkdir(exist_ok=True)
    lost, examples, name = Counter[str](), dict[str, str](), f"{number:06d}"
    try:
        entry = write_shard(own / f"{name}.tar", finished(drafts, lost, examples))
        entry = replace(entry, dropped=entry.dropped + lost)
        size = (own / f"{name}.tar").stat().st_size if entry.samples else 0
        report = {"file": entry.file, "samples": entry.samples, "sha256": entry.sha256, "counts": entry.counts}
        report |= {"dropped": entry.dropped, "bytes": size, "examples": examples}
        (own / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    except OSError:
        shutil.rmtree(own)
        raise
    if entry.samples:
        os.replace(own / f"{name}.tar", place.folder / f"{name}.tar")
    os.replace(own / f"{name}.json", place.folder / f"{name}.json")
    return Finished(entry, examples)


def _leave_with(parent: int) -> None:
    """A worker ends when the job that started it was killed: nobody would ever give it work again."""
    leave_interrupts_to_parent()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refuse_small_disk(place: Workplace, first: list[Draft], total: int | None) -> None:
    """From the photos of the first shard: how much the whole set will take, against what is free."""
    lengths = [draft.photo.length() for draft in first if draft.photo is not None]
    needed = int((sum(lengths) / max(1, len(lengths)) + _TEXT_BYTES) * (total if total is not None else len(first)))
    there = sum(path.stat().st_size for path in place.folder.glob("*.tar"))
    free = shutil.disk_usage(place.folder).free
    if needed - there > free:
        if not there:
            place.clear()
        raise UnfinishedError(
            f"{place.out}: expected about {_gigabytes(needed - there)} of free disk for its shards, found "
            f"{_gigabytes(free)}; make room, or give another --out"
        )


def _disk_full(place: Workplace, entries: Mapping[int, Finished], total: int | None, size: int) -> str:
    there = sum(path.stat().st_size for path in place.folder.glob("*.tar"))
    shards = max(1, len(entries))
    wanted = (
        f"about {_gigabytes(int(there / shards * (total / size - shards)))} more" if total and there else "more room"
    )
    return (
        f"{place.out}: the disk is full after {len(entries)} shards ({_gigabytes(there)}); it takes {wanted}. Make "
        f"room and give the same command again: it goes on with the whole shards, which lie in {place.folder}"
    )


def _gigabytes(count: int) -> str:
    return f"{max(0, count) / 1e9:,.3g} GB"
