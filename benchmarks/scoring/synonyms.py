"""LVIS's names as people say them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def spoken(synonym: str) -> list[str]:
    """`bow_(weapon)` as the two words `bow` and `weapon`, underscores as blanks."""
    parts = synonym.replace(")", "").split("(")
    return [part.replace("_", " ").strip() for part in parts if part.strip(" _")]


def words_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The name and the synonyms of a line of Ref-LVIS, each once."""
    name = str(entry["name"]).replace("_", " ").strip()
    return tuple(dict.fromkeys((name, *(part for synonym in entry["synonyms"] for part in spoken(str(synonym))))))
