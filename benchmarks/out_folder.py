"""The folder that results go into: the next free one under runs/, or a named one; one run at a time writes there."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.data_roots import near
from benchmarks.rows import RESULTS, read_rows

LOCK = ".lock"


def numbered(runs: Path, stem: str) -> Path:
    """runs/STEM-1, runs/STEM-2, ...: the first that does not exist."""
    number = 1
    while (runs / f"{stem}-{number}").exists():
        number += 1
    return runs / f"{stem}-{number}"


@contextmanager
def out_folder(named: str | None) -> Iterator[Path]:
    """The folder of the results, made and held; an older result of this command in a named one is replaced.

    Raises:
        ValueError: the folder holds another program's results.json, is a file, cannot be made, or another run writes
            into it.
    """
    folder = Path(named) if named else numbered(near("runs"), "bench")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=bool(named))
    except FileExistsError:  # another run has just taken the number
        with out_folder(None) as other:
            yield other
        return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ValueError(f"--out: {folder} cannot be made ({error}); give another folder") from error
    with held(folder):
        if (folder / RESULTS).is_file():
            try:
                read_rows(folder / RESULTS)
            except ValueError as error:
                raise ValueError(
                    f"--out: {folder} holds a {RESULTS} of something else; give another folder ({error})"
                ) from error
            for old in (folder / "predictions").glob("*.json*"):
                old.unlink()
            (folder / RESULTS).unlink()
        yield folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder of results; where the file system knows no locks nobody is kept out.

    Raises:
        ValueError: another run writes into it.
    """
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"--out: another run is writing into {folder}; wait for it, or give another folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
