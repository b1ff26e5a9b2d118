"""The folder that results go into: the next free one under runs/, or a named one; one run at a time writes there."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rows import RESULTS, read_rows
from cloc.data_root import find_near
from cloc.files import read_object

LOCK = ".lock"
PROGRESS, ASKED = "progress", "asked.json"
"""What an unfinished run has answered so far, and what it was asked; gone when it is finished."""


def find_free_number(runs: Path, stem: str) -> Path:
    """runs/STEM-1, runs/STEM-2, ...: the first that does not exist."""
    number = 1
    while (runs / f"{stem}-{number}").exists():
        number += 1
    return runs / f"{stem}-{number}"


@contextmanager
def open_out_folder(named: str | None) -> Iterator[Path]:
    """The folder of the results, made and held; an older result of this command in a named one is replaced.

    Raises:
        ValueError: the folder holds another program's results.json, is a file, cannot be made, or another run writes
            into it.
    """
    folder = Path(named) if named else find_free_number(find_near("runs"), "bench")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=bool(named))
    except FileExistsError:  # another run has just taken the number
        with open_out_folder(None) as other:
            yield other
        return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ValueError(f"--out: {folder} cannot be made ({error}); give another folder") from error
    with lock_results(folder):
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
def open_resumable_folder(named: str | None, resumed: str | None, asked: dict[str, Any]) -> Iterator[Path]:
    """The folder of a run that can be killed and gone on with: a new one, or that of a run that asked for the same.

    Args:
        named: `--out`.
        resumed: `--resume`; None starts a new run.
        asked: what the run is asked, as JSON.

    Raises:
        ValueError: the run to go on with asked for something else, or is none.
    """
    if resumed is None:
        with open_out_folder(named) as folder:
            shutil.rmtree(folder / PROGRESS, ignore_errors=True)
            (folder / PROGRESS).mkdir()
            (folder / PROGRESS / ASKED).write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
            yield folder
        return
    file = Path(resumed) / PROGRESS / ASKED
    if not file.is_file():
        raise ValueError(f"--resume: {resumed} is no unfinished run (no {PROGRESS}/{ASKED}); start a new one")
    before = read_object(file, "what an unfinished run asked for", "start a new run")
    differing = [name for name in asked if asked[name] != before.get(name)]
    if differing:
        changes = "; ".join(f"{name} was {before.get(name)}, is {asked[name]}" for name in differing)
        raise ValueError(f"--resume: {resumed} asked for something else: {changes}; ask the same, or start a new run")
    with lock_results(Path(resumed)):
        yield Path(resumed)


@contextmanager
def lock_results(folder: Path) -> Iterator[None]:
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
