"""A command as a process of its own: its time, its processor time and its peak of memory, and nobody else's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

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
        told = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(words[:3])} failed with code {done.returncode}:\n{told}")
    seconds, busy, peak = (float(word) for word in done.stdout.splitlines()[-1].split())
    return Used(seconds, busy, int(peak * 1024))
