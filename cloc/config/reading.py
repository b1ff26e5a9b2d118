"""YAML and overrides in, a checked config out; and back."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cloc.config.overrides import apply_override, read_yaml
from cloc.config.run import Config, DataConfig

REPOSITORY = Path(__file__).resolve().parents[2]


def find_config(path: str) -> Path:
    """A config by path, looked for from the current folder, then from the repository."""
    for candidate in (Path(path), REPOSITORY / path):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "configs").glob("*.yaml"))
    raise ValueError(f"config {path}: no such file; known: {', '.join(known) or 'none'}")


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `a.b=c` overrides.

    Raises:
        ValueError: the file is missing or no mapping, an override is malformed, a key is unknown (the nearest known one
            is named), or a value does not fit.
    """
    file = find_config(path)
    raw = read_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: expected a mapping with keys such as data and train, got {type(raw).__name__}")
    for override in overrides:
        apply_override(raw, override)
    return parse_config(raw, str(file))


def parse_config(raw: dict[str, Any], where: str = "config") -> Config:
    """A config from plain data; see `load_config` for the errors."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {_explain(raw, e)}" for e in error.errors())) from None


def _explain(raw: dict[str, Any], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    name = ".".join(location) or "config"
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}" + (
            f" (got {error['input']!r})" if location and error["type"] != "missing" else ""
        )
    fields = _fields_at(error["loc"][:-1])
    near = difflib.get_close_matches(location[-1], fields, n=1, cutoff=0.0)
    return f"{name}: unknown key; the nearest known one is {'.'.join([*location[:-1], near[0]])!r}"


def _fields_at(location: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        if isinstance(part, str):
            annotation = DataConfig if part == "data" else model.model_fields[part].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
    return list(model.model_fields)


def dump_config(config: Config) -> str:
    """The resolved config as YAML, with every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
