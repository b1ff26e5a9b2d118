"""A command or a function in a process of its own: its time and its peak of memory, and nobody else's.

A process never gives back its peak, so what is compared is measured in one process each.
"""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

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


def measured(words: Sequence[str]) -> Used:
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


def answered(what: str, needs: str, function: Callable[..., T], *arguments: Any) -> T:
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


def peak_mib() -> float:
    """Of this process since it was started: `ru_maxrss` would begin with the peak of the one that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def resident_mib() -> float:
    """Of this process now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20
