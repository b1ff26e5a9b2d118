"""One resumable job over shards: what converting, labelling and rendering have in common.

`OUT` appears under its name when all its shards and its card are there. Until then the work lies beside it, in
`.OUT.part`: NNNNNN.tar and NNNNNN.json for each finished shard (the report alone where no sample was left), each
written elsewhere first and then renamed. A job that was killed leaves only finished shards and scraps; the next one
throws the scraps away and goes on.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import platform
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cloc.data.shards import CARD, ShardEntry, read_card, write_card, write_shard
from cloc.disk import LOCK, locked, write_text
from cloc.files import read_object
from cloc.structures import Sample

_WATCH_SECONDS = 0.5
Result = TypeVar("Result")


class UnfinishedError(ValueError):
    """A job ended early, and the same command goes on with the shards that are finished."""


@dataclass(frozen=True)
class ShardJob:
    """Where one job writes; see the head of this file.

    Attributes:
        out: the folder that it makes.
        ending: of the folder's name until then.
        state: name of the file in there that says what is being made.
    """

    out: Path
    ending: str = "part"
    state: str = "made.json"

    @property
    def folder(self) -> Path:
        """Where the shards lie until the set is whole."""
        return self.out.with_name(f".{self.out.name}.{self.ending}")

    @contextmanager
    def opened(self, made: Mapping[str, Any], busy: str, keep_others: bool = False) -> Iterator[dict[str, Any] | None]:
        """Begin a job, or go on with an interrupted one that was to make the same.

        Gives the card where that one was killed after it had written it: then the set is whole now.

        Args:
            made: the card's field that tells how the set is made.
            busy: the error's message where another job is at work here.
            keep_others: what an interrupted job with other parameters left is an error; else it is thrown away.

        Raises:
            ValueError: as `busy` and `keep_others` say.
        """
        with locked(self.folder, busy):
            self._take_up(json.loads(json.dumps(made)), keep_others)
            card = read_card(self.folder)
            if card is not None:
                self._tidy_up(card)
            try:
                yield card
            finally:
                self._remove_scraps()

    def _take_up(self, made: dict[str, Any], keep_others: bool) -> None:
        path, card = self.folder / self.state, read_card(self.folder)
        found = None
        if card is not None:
            found = card.get("made", {})
        elif path.is_file():
            found = read_object(path, "an unfinished job", "remove that folder")
        self._remove_scraps()
        if found == made:
            return
        if found is not None and keep_others:
            different = sorted(key for key in {*found, *made} if found.get(key) != made.get(key))
            raise ValueError(
                f"{self.folder} holds an unfinished job with other parameters (different: {', '.join(different)}); "
                f"go on with those, give another --out, or remove that folder"
            )
        self._remove_all_but({LOCK})
        write_text(path, json.dumps(made, ensure_ascii=False) + "\n")

    def _remove_scraps(self) -> None:
        for scraps in self.folder.glob("writing-*"):
            shutil.rmtree(scraps, ignore_errors=True)  # a worker that outlives its job by a moment may write in it

    def _remove_all_but(self, kept: set[str]) -> None:
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def find_report(self, number: int) -> dict[str, Any] | None:
        """The report of a shard, None where it is not finished or its tar is not whole."""
        path, tar = (self.folder / f"{number:06d}.{ending}" for ending in ("json", "tar"))
        if not path.is_file():
            return None
        report = read_object(path, "the report of a shard", "remove it and its tar")
        return report if report.get("bytes") == (tar.stat().st_size if tar.is_file() else 0) else None

    def write(
        self,
        number: int,
        samples: Iterable[Sample],
        dropped: Counter[str] | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> dict[str, Any]:
        """Write a shard, then the report which says that it is finished; the report of one that is finished.

        Args:
            number: of the shard.
            samples: what it holds.
            dropped: what was left out before, by reason; read after the last sample.
            more: further fields of the report; called after the last sample.

        Raises:
            OSError: nothing half written is left, so that the disk is not full for the others of the job as well.
        """
        report = self.find_report(number)
        if report is not None:
            return report
        # a process that outlived its job must not write into another's file, nor one of another machine of a cluster
        own = self.folder / f"writing-{platform.node()}-{os.getpid()}"
        tar, path = own / f"{number:06d}.tar", own / f"{number:06d}.json"
        try:
            own.mkdir(exist_ok=True)
            entry = write_shard(tar, samples)
            report = {"samples": entry.samples, "sha256": entry.sha256, "counts": entry.counts}
            report["dropped"] = entry.dropped + (dropped or Counter())
            report |= {"bytes": tar.stat().st_size if entry.samples else 0, **more()}
            path.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        except OSError:
            shutil.rmtree(own, ignore_errors=True)
            raise
        if entry.samples:
            tar.replace(self.folder / tar.name)
        path.replace(self.folder / path.name)
        return report

    def finish(self, card: Mapping[str, Any]) -> None:
        """Write the card, remove everything but it and its shards, and give the folder its name.

        A kill in between leaves the card, which tells the next job that only the tidying up is left.
        """
        write_card(self.folder, card)
        self._tidy_up(card)

    def _tidy_up(self, card: Mapping[str, Any]) -> None:
        self._remove_all_but({CARD, *(entry["file"] for entry in card["shards"])})
        os.replace(self.folder, self.out)  # an empty folder at most: a full one was refused before

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_entry(number: int, report: Mapping[str, Any]) -> ShardEntry:
    """What the card says about a finished shard."""
    counts, dropped = Counter(report["counts"]), Counter(report["dropped"])
    return ShardEntry(f"{number:06d}.tar", report["samples"], report["sha256"], counts, dropped)


def count_cores() -> int:
    """How many processes can run here at the same time."""
    return len(os.sched_getaffinity(0))


@contextmanager
def starting_processes() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C to this one, from their first line on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent(parent: int) -> None:
    """For a worker process: it ends when the job that started it was killed, for nobody would give it work again."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends them
    end_with_parent(parent)


def run_tasks(
    work: Callable[..., Result], tasks: Iterable[tuple[Any, ...]], workers: int, out: Path
) -> Iterator[Result]:
    """`work(*task)` for each task, in the order in which they end.

    Few tasks are under way at any time, so that memory does not grow with their number.

    Args:
        work: a function of a module.
        tasks: its arguments.
        workers: forked processes, which share nothing but the disk; 1 works in this process.
        out: for messages.

    Raises:
        UnfinishedError: a process was ended from outside.
    """
    if workers == 1:
        yield from itertools.starmap(work, tasks)
        return
    # forked: the children only copy or draw, and starting them costs nothing
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(os.getpid(),)) as pool:
        running = set[Future[Result]]()
        try:
            for task in tasks:
                while len(running) >= 2 * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                running.add(pool.submit(work, *task))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise UnfinishedError(
                f"{out}: a worker process was ended from outside (out of memory?); whole shards are kept, the "
                "same command goes on; try fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
