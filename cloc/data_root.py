"""Where data and runs are looked for: one rule for training, scoring and the bridge."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def find_near(name: str) -> Path:
    """`runs` or `data`: in the current folder, else in the kit's repository, else yet to be made here."""
    here, ours = Path(name), REPOSITORY / name
    return ours if not here.is_dir() and ours.is_dir() and (REPOSITORY / "pyproject.toml").is_file() else here


def find_data_root(given: str | Path | None = None, must_exist: bool = True) -> Path:
    """`--data`, else `$CLOC_DATA`, else `data/`, see `find_near`.

    Args:
        given: what `--data` says.
        must_exist: False for training, which renders the worlds of its recipes into a root that is not there yet.

    Raises:
        ValueError: a root that was named does not exist.
    """
    named, by = (given, "--data") if given else (os.environ.get("CLOC_DATA"), "$CLOC_DATA")
    if not named:
        return find_near("data")
    root = Path(named).expanduser()
    if must_exist and not root.is_dir():
        raise ValueError(
            f"{by}: expected a folder, found none at {root}; give a data root that holds coco/, lvis/, refcoco/"
        )
    return root
