"""Prints pip constraints that ask for the oldest version of each dependency that pyproject.toml allows.

For `make test-oldest`: pip takes the newest release there is and has no switch for the opposite. What our dependencies
need themselves stays free, since their authors say what fits.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
EXTRAS = ("dev",)
"""What the tests are run with."""


def find_floors(project: dict) -> dict[str, str]:
    """The lowest version by name of every dependency, those of `EXTRAS` included, as its `>=` or `==` says.

    Raises:
        ValueError: A dependency names no lowest version, so that nobody knows what it was tested with.
    """
    wanted = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    floors = {}
    for line in wanted:
        found = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?[>=]=([\w.]+)(?:,<[\w.]+)?", line.replace(" ", ""))
        if found is None:
            raise ValueError(f"pyproject.toml: {line!r} names no lowest version; write NAME>=VERSION,<VERSION")
        floors[found[1]] = found[2]
    return floors


if __name__ == "__main__":
    for name, version in find_floors(tomllib.loads(PYPROJECT.read_text())["project"]).items():
        print(f"{name}=={version}")
