"""What both scripts share: our figures from `benchmarks/run.py`, theirs from a program in another environment."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cli import main as ours
from benchmarks.out_folder import find_free_number
from benchmarks.rows import Row, read_rows
from cloc.data_root import find_near

Key = tuple[str, str]
TOLERANCE = 1e-6
"""Largest difference of equal figures: some of theirs are means in fp32."""
VERSION = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"


def add_shared_options(made: argparse.ArgumentParser, folder: str) -> None:
    """The options that both scripts have; `folder` is the name under runs/ where results go by default."""
    made.add_argument("--python", type=Path, required=True, metavar="FILE", help="of the other programs' environment")
    made.add_argument("--out", type=Path, metavar="DIR", help=f"new folder (default: runs/{folder}-N)")
    made.set_defaults(folder=folder)


def run(given: argparse.Namespace, packages: Sequence[str], work: Callable[[Path, dict[str, str]], bool]) -> int:
    """Do a script's work in a new folder.

    Args:
        given: the command line, with `add_shared_options`.
        packages: whose versions in the other programs' environment are written down.
        work: gets the folder and the versions, returns whether everything is equal.

    Returns:
        0 when everything is equal, 1 when something differs, 2 after a message about a mistake.
    """
    out = given.out or find_free_number(find_near("runs"), given.folder)
    try:
        versions = read_versions(given.python.absolute(), packages)
        if out.exists():
            raise ValueError(f"--out: {out} is already there; give a new folder")
        return 0 if work(out, versions) else 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def read_versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions in the other programs' environment.

    Raises:
        ValueError: there is no such interpreter, or a package is not installed there.
    """
    if not python.is_file():
        raise ValueError(
            f"--python: expected the interpreter of the other programs' environment, found none at {python}; make "
            "one with `python -m benchmarks.external.environment`"
        )
    done = subprocess.run([python, "-c", VERSION, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1]
        raise ValueError(f"--python: {python} lacks one of {', '.join(packages)} ({why}); install requirements.txt")
    return dict(zip(packages, done.stdout.split(), strict=True))


def run_other(command: Sequence[str | Path], log: Path, folder: Path | None = None) -> None:
    """Run another program's command with no network, in `folder` if given; what it says goes to `log`.

    Raises:
        ValueError: it failed; the end of its message is quoted.
    """
    with log.open("w", encoding="utf-8") as out:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        how: dict[str, Any] = {
            "stdout": out,
            "stderr": subprocess.STDOUT,
            "env": environment,
            "cwd": folder,
            "check": False,
        }
        done = subprocess.run(list(map(str, command)), **how)
    if done.returncode:
        last = "\n  ".join(log.read_text(encoding="utf-8").strip().splitlines()[-8:])
        raise ValueError(f"{' '.join(map(str, command[1:4]))} ended with {done.returncode}; see {log}\n  {last}")


def run_kit(command: Sequence[str | Path]) -> None:
    """Run a command of this kit in a process of its own.

    Raises:
        ValueError: it failed; its message stands above.
    """
    done = subprocess.run([sys.executable, *map(str, command)], check=False)
    if done.returncode:
        raise ValueError(f"{' '.join(map(str, command[:3]))} ended with {done.returncode}; its message stands above")


def score_ours(arguments: Sequence[str | Path], out: Path) -> list[Row]:
    """The rows of `benchmarks/run.py` with these arguments.

    Raises:
        ValueError: it could not be done; its message stands above.
    """
    if ours([*map(str, arguments), "--out", str(out)]):
        raise ValueError(f"benchmarks/run.py {' '.join(map(str, arguments))}: failed; its message stands above")
    return read_rows(out / "results.json")


def compare_figures(mine: Mapping[Key, float | None], other: Mapping[Key, float]) -> list[dict[str, Any]]:
    """One entry a figure that the other program has.

    Args:
        mine: our figures by (task, metric).
        other: the other program's, by our names.

    Raises:
        ValueError: we have no such figure.
    """
    lacking = sorted(set(other) - {key for key, value in mine.items() if value is not None})
    if lacking:
        raise ValueError(f"no figure of ours for {lacking}; look at the rows above")
    known = {key: value for key, value in mine.items() if value is not None}
    return [
        {"task": task, "metric": metric, "ours": known[task, metric], "theirs": value}
        | {"equal": abs(known[task, metric] - value) <= TOLERANCE}
        for (task, metric), value in other.items()
    ]


def write_comparison(rows: Sequence[Mapping[str, Any]], versions: Mapping[str, str], out: Path, **more: Any) -> bool:
    """Print the table and write `neighbours.json`; returns whether all figures are equal."""
    print(f"\n{'task':<12}{'metric':<28}{'ours':>10}{'theirs':>10}")
    for row in rows:
        mark = "equal" if row["equal"] else "DIFFERENT"
        print(f"{row['task']:<12}{row['metric']:<28}{row['ours']:>10.6f}{row['theirs']:>10.6f}  {mark}")
    content = {"schema": 1, "rendered": True, "versions": dict(versions), "rows": list(rows), **more}
    (out / "neighbours.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    print(f"{named}; rendered scenes: they say nothing about photographs\nwritten: {out / 'neighbours.json'}")
    return all(row["equal"] for row in rows)
