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
