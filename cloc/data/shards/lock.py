"""One job at a time works in a folder; the workers of a killed one may live on for a moment, and hold its lock."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK = "lock"
ORPHANS_LAST = 20.0
"""Seconds that a new job waits for the workers of a killed one."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that knows no locks; there nobody is kept out."""
_LOOK = 0.1


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Make a folder and hold the lock in it. Forked workers share it: it is free when the last of them is gone.

    Args:
        folder: to work in; its lock may go with it at the end.
        busy: message of the error.

    Raises:
        ValueError: another job has the lock, and keeps it for `ORPHANS_LAST`.
    """
    until = time.monotonic() + ORPHANS_LAST
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as lock:
            if _taken(lock, folder / LOCK):
                yield
                return
        if time.monotonic() > until:
            raise ValueError(busy)
        time.sleep(_LOOK)


def _taken(lock: IO[str], path: Path) -> bool:
    """Whether the lock is ours now, and is the one that lies there: whoever had it may have removed it at its end."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return True
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
