"""Processor time of a command with all processes that it starts, those included that leave it and those that die.

They are known by a mark in their environment: Ray's workers, for one, are not the children of who started Ray.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
