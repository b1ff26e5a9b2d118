"""YAML and overrides in, a checked config out; and back. The same lines for every kind of config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cloc.config.meant import what_is_meant
from cloc.config.overrides import apply_override
from cloc.config.run import Config
from cloc.files import read_yaml

MOST_TOLD, MOST_SHOWN = 20, 200
"""Mistakes that are listed at once, and characters of a value that are shown."""
REPOSITORY = Path(__file__).resolve().parents[2]
Kind = TypeVar("Kind", bound=BaseModel)


def find_config(path: str, folder: str = "configs") -> Path:
    """A config by path, looked for from the current folder, then from the repository.

    Raises:
        ValueError: there is none; those in `folder` of the repository are named.
    """
    for candidate in (Path(path), REPOSITORY / path):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / folder).glob("*.yaml"))
    raise ValueError(f"config {path}: no such file; known: {', '.join(known) or 'none'}")


def read_config(kind: type[Kind], file: Path, overrides: Sequence[str] = ()) -> Kind:
    """Read a YAML file as a config of one kind and apply `a.b=c` overrides.

    Raises:
        ValueError: the file is no text or no mapping, an override is malformed, a key is unknown (the nearest known one
            is named), or a value does not fit.
    """
    raw = read_yaml(file)
    if not isinstance(raw, dict):
        needed = " and ".join(name for name, field in kind.model_fields.items() if field.is_required())
        raise ValueError(f"{file}: expected a mapping with keys such as {needed}, got {type(raw).__name__}")
    for override in overrides:
        apply_override(raw, override)
    return checked(kind, raw, str(file))


def checked(kind: type[Kind], raw: dict[str, Any], where: str = "config") -> Kind:
    """A config of one kind from plain data; see `read_config` for the errors, which are listed all at once."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [f"{where}: {_explain(kind, e)}" for e in error.errors(include_url=False)]
        more = [f"{where}: and {len(lines) - MOST_TOLD} mistakes more"] if len(lines) > MOST_TOLD else []
        raise ValueError("\n".join(lines[:MOST_TOLD] + more)) from None


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """The config of a training run; see `find_config` and `read_config` for the errors."""
    return read_config(Config, find_config(path), overrides)


def parse_config(raw: dict[str, Any], where: str = "config") -> Config:
    """The same from plain data."""
    return checked(Config, raw, where)


def dump_config(config: BaseModel) -> str:
    """A resolved config as YAML, with every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _explain(kind: type[BaseModel], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    name = ".".join(location)
    if error["type"] != "extra_forbidden":
        own = error["type"] == "value_error"  # a sentence of ours, which says what it got
        shows_value = location and error["type"] != "missing" and not (own and isinstance(error["input"], dict))
        message = error["msg"].removeprefix("Value error, ") + (
            f" (got {_short(error['input'])})" if shows_value else ""
        )
        return f"{name}: {message}" if name else message
    return f"{name[:MOST_SHOWN]}: unknown key; {what_is_meant(kind, location)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
