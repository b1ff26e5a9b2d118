"""Where a scored file comes from and goes to: digests, versions, the next free folder; all without torch.

`cloc.export` has the like for exports, behind a front door that loads torch.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.data_roots import SOURCE, near
from benchmarks.rows import RESULTS, read_rows

LOCK = ".lock"
PACKAGES = ("mllm-vision-kit", "numpy", "scipy", "pycocotools")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkout() -> str:
    """The kit's commit, with `-dirty` where files differ from it; `unknown` without git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Of Python, the kit, and what computes the figures."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> str:
    """The processor; figures do not depend on it."""
    return f"{platform.processor() or platform.machine()}, CPU"


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
