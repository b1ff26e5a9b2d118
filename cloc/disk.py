"""Writing on a disk that may be full: one kind of error for it, and nothing half written stays."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What safetensors says of a disk, and torch, become the OSError that Python itself would raise.

    Args:
        path: what is written, for the message.

    Raises:
        OSError: with the system's number, such as `errno.ENOSPC`, where the library told it.
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


def open_to_umask(place: Path) -> None:
    """Give files the mode that Python's own `open` would have given them: safetensors writes with 0600.

    A team's export on a shared disk would otherwise be its maker's alone. Links, and files that lie in another folder
    too (hard links), stay as they are.

    Args:
        place: a file, or a folder with all that lies in it.
    """
    mode = 0o666 & ~_umask()
    for path in [place] if place.is_file() else place.rglob("*"):
        if not path.is_symlink() and path.is_file() and path.stat().st_nlink == 1:
            path.chmod(path.stat().st_mode & 0o111 | mode)


def _umask() -> int:
    try:  # without a moment in which another thread would write with another mask
        told = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        told = None
    if told is not None:
        return int(told[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
