"""Concepts and their definitions (DetCLIPv2 3.1, DetCLIP's concept dictionary): what the text tower reads for a name.

A concept is a name; its sentence is `name, definition`. A name that the dictionary lacks takes the definition of its
nearest entry, so that training and testing see sentences of one form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cloc.text import canonical, concept_name, concept_sentence


class ConceptDictionary:
    """Names with definitions.

    Args:
        entries: name to definition; an empty definition is allowed.
        nearest: from this similarity on (0 to 1, shared letter triples), an absent name takes the definition of the
            entry nearest to it. The papers compare embeddings, which a loader does not have while the text tower is
            still learning; above 1 switches it off.
    """

    def __init__(self, entries: Mapping[str, str], nearest: float = 0.6) -> None:
        self.definitions: dict[str, str] = {}
        for name, definition in entries.items():
            key = concept_name(name)
            if key and not self.definitions.get(key):
                self.definitions[key] = canonical(definition)
        self.names = tuple(self.definitions)
        self._threshold = nearest
        self._nearest = lru_cache(maxsize=100_000)(self._find_nearest)

    def __len__(self) -> int:
        return len(self.names)

    def sentence(self, name: str) -> str:
        """What the text tower reads for a name."""
        key = concept_name(name)
        if key in self.definitions:
            definition = self.definitions[key]
        else:
            near = self._nearest(key)
            definition = self.definitions[near] if near else ""
        return concept_sentence(key, definition)

    def _find_nearest(self, key: str) -> str | None:
        if self._threshold > 1 or not self.names:
            return None
        wanted = _triples(key)
        scores = [_likeness(wanted, triples) for triples in self._all_triples()]
        best = int(np.argmax(scores))
        return self.names[best] if scores[best] >= self._threshold else None

    @lru_cache(maxsize=1)  # noqa: B019 - one dictionary lives as long as its loader
    def _all_triples(self) -> list[frozenset[str]]:
        return [_triples(name) for name in self.names]

    @classmethod
    def read(cls, file: Path | str) -> ConceptDictionary:
        """Read a dictionary written by `write`, or a category list that `read_categories` knows.

        Raises:
            ValueError: the file is neither.
        """
        return cls(dict(read_categories(Path(file))))

    def write(self, file: Path) -> None:
        """Write `[{"name": ..., "definition": ...}, ...]`."""
        entries = [{"name": name, "definition": text} for name, text in self.definitions.items()]
        file.write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_categories(file: Path) -> list[tuple[str, str]]:
    """(name, definition) of a category file: a JSON list of objects with `name` (and `definition` or `def`), a COCO or
    LVIS file with `categories`, a set's `dataset.json`, or a text file with a name a line.

    Raises:
        ValueError: the file is missing, is none of these, is not in UTF-8, or names a category twice.
    """
    if not file.is_file():
        raise ValueError(f"{file}: expected a category file, found none")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected text in UTF-8 ({error}); save the category file again as UTF-8") from error
    if file.suffix == ".txt":
        found = [(line.strip(), "") for line in text.splitlines() if line.strip()]
    else:
        found = [_category(entry, file) for entry in _listed(text, file)]
    often = Counter(concept_name(name) for name, _ in found)  # `bow_tie` and `bow tie` are read as one
    twice = [name for name, count in often.items() if count > 1]
    if twice:
        raise ValueError(f"{file}: {len(twice)} category names occur twice (first: {twice[0]!r}); give each name once")
    if not found:
        raise ValueError(f"{file}: expected category names, found none")
    return found


def _listed(text: str, file: Path) -> list[Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, or a .txt with a name a line ({error})") from error
    if isinstance(content, dict):
        content = content.get("categories")
    if not isinstance(content, list):
        raise ValueError(f"{file}: expected a list of categories, or an object with 'categories'")
    return content


def _category(entry: Any, file: Path) -> tuple[str, str]:
    if isinstance(entry, str):
        return entry, ""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{file}: expected categories with a 'name', got {entry!r}")
    return name, str(entry.get("definition") or entry.get("def") or "")


def from_cards(cards: Iterable[Mapping[str, Any] | None], more: Iterable[Path] = ()) -> ConceptDictionary:
    """The categories of the sets' cards, and those of further category files."""
    entries: dict[str, str] = {}
    for card in cards:
        for category in (card or {}).get("categories", ()):
            entries.setdefault(str(category["name"]), str(category.get("definition") or ""))
    for file in more:
        for name, definition in read_categories(file):
            entries.setdefault(name, definition)
    return ConceptDictionary(entries)


def _triples(name: str) -> frozenset[str]:
    padded = f"  {name} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))


def _likeness(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared triples over all (Jaccard)."""
    return len(left & right) / max(len(left | right), 1)
