"""Where a scored file comes from and goes to: digests, versions, the next free folder; all without torch.

`cloc.export` has the like for exports, behind a front door that loads torch.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.roots import SOURCE, near
from benchmarks.rows import RESULTS, read_rows

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


def out_folder(named: str | None) -> Path:
    """The folder of the results, made; an older result of this command in a named one is replaced.

    Raises:
        ValueError: the folder holds another program's results.json, is a file, or cannot be made.
    """
    folder = Path(named) if named else numbered(near("runs"), "bench")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {folder}")
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out: {folder} cannot be made ({error}); give another folder") from error
    return folder
