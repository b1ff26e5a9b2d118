"""What a wheel holds: the kit reads configs, plans and tasks beside its code, so they have to be in it."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
FOUND = SETUPTOOLS["packages"]["find"]["include"]
PATTERNS = [pattern for patterns in SETUPTOOLS["package-data"].values() for pattern in patterns]


def test_every_file_beside_the_code_is_package_data():
    tops = [path for path in REPOSITORY.iterdir() if path.is_dir() and any(fnmatch(path.name, one) for one in FOUND)]
    files = [path for top in tops for path in top.rglob("*") if path.is_file() and path.suffix != ".py"]
    files = [path for path in files if "__pycache__" not in path.parts]  # Python's, under passing names as well
    assert {path.name for path in files} >= {"py.typed", "quickstart.yaml", "zero2.json", "scenes_yesno.yaml"}
    assert [str(path) for path in files if not any(fnmatch(path.name, one) for one in PATTERNS)] == []


def test_the_patterns_hold_for_every_package():
    assert list(SETUPTOOLS["package-data"]) == ["*"]
