"""How costs are measured: works in turn, a command or function in a process of its own, all processes of a command.

Works are taken in turn so that a busy machine hits them alike. A process never gives back its peak of memory, so what
is compared is measured in one process each. `Family` sums the processor time of a command with all processes that it
starts, those included that leave it and those that die: they are known by a mark in their environment, since Ray's
workers, for one, are not the children of who started Ray.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.tasks.contract import Score

T = TypeVar("T")
COST = "a cost: there is nothing to guess"
"""Why seconds and memory have neither chance nor constant."""


def take_in_turn(works: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each work answered, `repeats` times; one round before is thrown away, since it warms up.

    The order changes from round to round, so that no work always follows the same other one.
    """
    answers: dict[str, list[T]] = {name: [] for name in works}
    names = list(works)
    for number in range(repeats + 1):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            answer = works[name]()
            if number:
                answers[name].append(answer)
    return answers


def time_call(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def find_ratio(slow: Sequence[float], quick: Sequence[float]) -> float:
    """Median of the ratios of pairs."""
    return median(a / b for a, b in zip(slow, quick, strict=True))


def make_cost_scores(split: str, protocol: str, figures: Mapping[str, float], num_examples: int) -> list[Score]:
    """Seconds, rates or sizes by metric as scores."""
    return [
        Score(split, protocol, metric, value=value, num_examples=num_examples, no_constant=COST)
        for metric, value in figures.items()
    ]


def describe_threads() -> str:
    """The threads of this process, for a protocol id."""
    return f"{os.environ.get('OMP_NUM_THREADS', 'all')}-threads"


_BETWEEN = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss, flush=True)
sys.exit(code)
"""
"""Started in between: a process begins with the peak of the one that started it, and that one may be large."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a command used.

    Attributes:
        seconds: from its start to its end.
        busy_seconds: of processor time, which other work on the machine does not stretch.
        peak_bytes: largest resident memory.
    """

    seconds: float
    busy_seconds: float
    peak_bytes: int


def measure_command(words: Sequence[str]) -> Used:
    """Run `python WORDS...` to its end.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    done = subprocess.run([sys.executable, "-c", _BETWEEN, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        output = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(words[:3])} failed with code {done.returncode}:\n{output}")
    seconds, busy, peak = (float(word) for word in done.stdout.splitlines()[-1].split())
    return Used(seconds, busy, int(peak * 1024))


def call_in_process(what: str, needs: str, function: Callable[..., T], *arguments: Any) -> T:
    """What a function of a module answers in a fresh process.

    Args:
        what: is measured, for the message of a process that died.
        needs: what may have been missing, for the same.
        function: what is called there.
        *arguments: with these.

    Raises:
        RuntimeError: the process died without an answer.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        answer = None
    process.join()
    if answer is None:
        raise RuntimeError(f"speed: the process that measured {what} ended with {process.exitcode}; is there {needs}?")
    return answer


def _answer(pipe: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    pipe.send(function(*arguments))


def read_peak_mib() -> float:
    """Of this process since it was started: `ru_maxrss` would begin with the peak of the one that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def read_resident_mib() -> float:
    """Of this process now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20


_MARK = "CLOC_MEASURED"
_EVERY = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


class Family:
    """Looks at all processes again and again; one that lives shorter than `every` seconds may be missed.

    Args:
        every: seconds between two looks.
    """

    def __init__(self, every: float = _EVERY) -> None:
        self.every = every
        self.mark = uuid.uuid4().hex
        self.history: list[tuple[float, float]] = [(time.time(), 0.0)]
        self._used: dict[tuple[int, str], float] = {}

    def until(self, moment: float) -> float:
        """Seconds of processor time that were used before `moment` (of `time.time`), as far as was seen."""
        return max(busy for seen, busy in self.history if seen <= moment or busy == 0.0)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Whatever is started in the block belongs to the family; this process does not."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(self.every):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        os.environ[_MARK] = self.mark
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()
            del os.environ[_MARK]

    def look(self) -> None:
        """See who is there and what they have used; a process that is gone keeps what it had."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                who = int(folder.name), fields[19]  # a number is given again, but not in the same moment
                # asked anew each time: before its `exec` a child shows the environment of its parent
                ours = f"{_MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended, or is another user's
            if ours:
                self._used[who] = (int(fields[11]) + int(fields[12])) / _TICKS
        self.history.append((time.time(), sum(self._used.values())))
