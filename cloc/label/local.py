"""Runs the shards of a job on this machine: in this process, or on several that hold a model each.

A worker takes one shard at a time. One that dies is replaced and its shard done again; what it had half done is scraps.
(A pool of the standard library ends as a whole when one of its processes dies, and does not tell the exit code.)
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from cloc.data.dataloader import one_thread
from cloc.data.shards import ShardSet
from cloc.jobs import ShardJob, end_with_parent, starting_processes
from cloc.label.shard import Labeller, label_one

TRIES = 3
"""How often the worker of one shard may die before the job gives up."""

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """What a worker needs to begin; it travels to other processes.

    Attributes:
        source: the image-text shards.
        job: where the labelled shards are written.
        make: makes the labeller on a device, such as `Labeller.load` with the settings bound.
        device: `cpu` or `cuda`; worker n takes card n modulo their number.
    """

    source: str
    job: ShardJob
    make: Callable[[str], Labeller]
    device: str = "cpu"

    def device_of(self, worker: int) -> str:
        """`cpu`, or the card of worker number `worker`."""
        return f"cuda:{worker % max(torch.cuda.device_count(), 1)}" if self.device == "cuda" else self.device


def run_here(work: Work, numbers: Sequence[int], advance: Advance) -> Counter[str]:
    """Label the shards one after another in this process; returns the seconds spent."""
    seconds = Counter[str]()
    with one_thread():
        shards, labeller = ShardSet.open(work.source, kind="pairs"), work.make(work.device_of(0))
        for number in numbers:
            seconds.update(label_one(work.job, shards, number, labeller, advance))
    return seconds


def run_processes(
    work: Work, numbers: Sequence[int], advance: Advance, workers: int, start_method: str = "spawn"
) -> Counter[str]:
    """Label the shards on `workers` processes; returns the seconds that all of them spent together.

    Args:
        work: what each needs.
        numbers: shards to do.
        advance: called with how many samples more are done (fewer, when a worker died).
        workers: processes at once.
        start_method: `spawn`; `fork` is quicker, and fit where no accelerator is in use.

    Raises:
        ValueError: a worker reported a mistake of the user's, or workers died again and again over one shard.
    """
    context = multiprocessing.get_context(start_method)
    waiting, deaths, seconds = list(numbers), Counter[int](), Counter[str]()
    members: list[_Member] = []
    try:
        for index in range(min(workers, len(waiting))):
            members.append(_Member.start(context, work, index, waiting.pop(0)))
        while members:
            ready = wait([member.answers for member in members])
            for member in [m for m in members if m.answers in ready]:
                finished = member.hear(advance, seconds)
                if finished is None:
                    continue
                members.remove(member)
                if not finished:
                    _count_death(member, deaths, advance)
                    members.append(_Member.start(context, work, member.index, member.number))
                elif waiting:
                    members.append(member.go_on(waiting.pop(0)))
                else:
                    member.end()
    finally:
        for member in members:
            member.process.kill()
            member.process.join()
    return seconds


def _count_death(member: _Member, deaths: Counter[int], advance: Advance) -> None:
    advance(-member.advanced)
    deaths[member.number] += 1
    if deaths[member.number] >= TRIES:
        raise ValueError(
            f"shard {member.number}: its worker died {TRIES} times (exit code {member.process.exitcode}; -9 is often a "
            "lack of memory); take fewer --workers or a smaller --batch, then run the same command again: what is "
            "finished stays"
        )


@dataclass
class _Member:
    """One worker process, the shard that it has, and the line to it."""

    process: Any
    answers: Connection
    index: int
    number: int
    advanced: int = field(default=0)

    @classmethod
    def start(cls, context: Any, work: Work, index: int, number: int) -> _Member:
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(work, index, theirs, os.getpid()), daemon=True)
        with starting_processes():
            process.start()
        theirs.close()  # so that the line breaks when the worker dies
        member = cls(process, mine, index, number)
        mine.send(number)
        return member

    def hear(self, advance: Advance, seconds: Counter[str]) -> bool | None:
        """One message: None to go on listening, True for a finished shard, False where the worker is dead."""
        try:
            kind, value = self.answers.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return False
        if kind == "error":
            raise ValueError(value)
        if kind == "advance":
            self.advanced += value
            advance(value)
            return None
        seconds.update(value)
        return True

    def go_on(self, number: int) -> _Member:
        self.answers.send(number)
        return _Member(self.process, self.answers, self.index, number)

    def end(self) -> None:
        self.answers.send(None)
        self.process.join()


def _serve(work: Work, index: int, line: Connection, parent: int) -> None:
    """A worker's life: load the models, label the shards that it is given, end with its job."""
    end_with_parent(parent)
    try:
        torch.set_num_threads(1)
        shards, labeller = ShardSet.open(work.source, kind="pairs"), work.make(work.device_of(index))
        for number in iter(line.recv, None):
            line.send(("done", label_one(work.job, shards, number, labeller, lambda n: line.send(("advance", n)))))
    except (ValueError, OSError) as error:
        line.send(("error", str(error)))
    except EOFError:
        return  # the job is gone
