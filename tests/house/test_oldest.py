"""The oldest versions that are allowed: what `make test-oldest` asks pip for."""

import runpy
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
find_floors = runpy.run_path(str(REPOSITORY / "tools" / "oldest.py"))["find_floors"]


def test_every_dependency_names_its_oldest_version():
    floors = find_floors(PROJECT)
    assert len(floors) == len(PROJECT["dependencies"]) + len(PROJECT["optional-dependencies"]["dev"])
    assert floors["lvis"] == "0.5.3"
    assert {"torch", "transformers", "pytest", "types-PyYAML"} <= set(floors)


@pytest.mark.parametrize("line", ["einops", "einops<1", "einops>0.8", "einops>=0.8,>=0.9"])
def test_one_without_is_refused(line):
    with pytest.raises(ValueError, match="names no lowest version; write NAME>=VERSION,<VERSION"):
        find_floors({"dependencies": [line], "optional-dependencies": {"dev": []}})
