"""Writing on a disk that may be full, beside other processes: what is written appears whole or not at all.

`locked` keeps a second job out of a folder.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

LOCK = "lock"
ORPHANS_LAST = 20.0
"""Seconds that a new job waits for the workers of a killed one."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that knows no locks; there nobody is kept out."""
_LOOK = 0.1


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What safetensors says of a disk, and torch, become the OSError that Python itself would raise.

    Args:
        path: what is written, for the message.

    Raises:
        OSError: with the system's number, such as `errno.ENOSPC`, where the library says it.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{path}: cannot be written ({error})") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


@contextmanager
def removed_unless_done(folder: Path) -> Iterator[Path]:
    """A folder that goes when what happens inside fails or is stopped: it frees the disk that it has filled."""
    with ExitStack() as undone:
        undone.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder
        undone.pop_all()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A file that takes its name when it is whole, in place of one that is there.

    Gives the path to write to, `PATH.part`, which is gone if anything goes wrong.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that takes its name when it is whole."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def require_free(out: Path, *sources: Path) -> None:
    """Nothing is ever overwritten, and nothing is written into what is read.

    Raises:
        ValueError: `out` exists and is not an empty folder, lies below a file, or in one of `sources`.
    """
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{out} lies in {source}, which is read; pass another --out")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{out} cannot be made: {above} is a file; pass another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; nothing is overwritten: pass another --out, or remove it")


@contextmanager
def atomic_dir(out: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the name `out` at the end, and is gone if anything goes wrong before.

    What a killed process of this machine has left for the same `out` goes too.

    Args:
        out: the folder.
        replace: one that is there goes, at the end.

    Raises:
        ValueError: without `replace`: `out` exists and is not an empty folder, or became one meanwhile.
    """
    if not replace:
        require_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{out.name}.unfinished-{socket.gethostname()}-"
    for left in out.parent.glob(f"{glob.escape(stem)}*"):
        owner = left.name.removeprefix(stem)
        if owner.isdecimal() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    unfinished = out.parent / f"{stem}{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        open_to_umask(unfinished)
        if replace:
            shutil.rmtree(out, ignore_errors=True)
        try:
            os.replace(unfinished, out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise ValueError(f"{out} appeared meanwhile, written by another process; pass another --out") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


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


def open_to_umask(path: Path) -> None:
    """Give files the mode that Python's own `open` would have given them: safetensors writes with 0600.

    A team's export on a shared disk would otherwise be its maker's alone. Links, and files that lie in another folder
    too (hard links), stay as they are.

    Args:
        path: a file, or a folder with all that lies in it.
    """
    mode = 0o666 & ~_umask()
    for file in [path] if path.is_file() else path.rglob("*"):
        if not file.is_symlink() and file.is_file() and file.stat().st_nlink == 1:
            file.chmod(file.stat().st_mode & 0o111 | mode)


def _umask() -> int:
    try:  # without a moment in which another thread would write with another mask
        found = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
