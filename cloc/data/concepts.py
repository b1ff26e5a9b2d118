"""Concepts and their definitions (DetCLIPv2 3.1, DetCLIP's concept dictionary): what the text tower reads for a name.

A concept is a name; its sentence is `name, definition`. A name is looked up by its words (case, hyphens and the plural
make no difference), then by its head: `red kettles` reads the definition of `kettle`. Never by letters: a kitchen is no
kitchen sink.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloc.files import parse_json
from cloc.phrases.mentions import find_head_words, spelling, split_name
from cloc.text import canonical, concept_name, concept_sentence

RECIPE = (
    "python -m cloc.convert.dictionary --categories lvis_v1_train_cat_info.json Objects365_names_fix.csv --wordnet "
    "--concepts 14000 --out data/dictionary.json"
)
"""The command that makes a dictionary like the paper's, which is not public: LVIS's and Objects365's names, WordNet's
glosses and further names of the same kinds.
"""
DICTIONARY = "concept_dictionary.json"
"""The file of an export that holds the dictionary of its training."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One concept of a dictionary.

    Attributes:
        name: as it is asked for.
        definition: one sentence, empty where there is none.
        synonyms: other names.
        parents: names of what it is a kind of, one step up.
    """

    name: str
    definition: str = ""
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()

    def joined(self, other: Entry) -> Entry:
        """Both in one; of two definitions this one's counts."""
        return replace(
            self,
            definition=self.definition or other.definition,
            synonyms=tuple(dict.fromkeys(self.synonyms + other.synonyms)),
            parents=tuple(dict.fromkeys(self.parents + other.parents)),
        )


class ConceptDictionary:
    """Names with definitions, synonyms and what they are kinds of.

    Args:
        entries: name to definition, or `Entry`s; an empty definition is allowed. Of two entries of a name the first
            definition counts.
    """

    def __init__(self, entries: Mapping[str, str] | Iterable[Entry]) -> None:
        if isinstance(entries, Mapping):
            entries = [Entry(name, definition) for name, definition in entries.items()]
        self.entries: dict[str, Entry] = {}
        for entry in entries:
            key = concept_name(entry.name)
            if not key:
                continue
            own = replace(entry, name=key, definition=canonical(entry.definition))
            self.entries[key] = self.entries[key].joined(own) if key in self.entries else own
        self.names = tuple(self.entries)
        self.definitions = {name: entry.definition for name, entry in self.entries.items()}
        self._spelled = self._by_spelling()
        self.definition = lru_cache(maxsize=100_000)(self._definition)

    def __len__(self) -> int:
        return len(self.names)

    def sentence(self, name: str) -> str:
        """What the text tower reads for a name."""
        return concept_sentence(name, self.definition(concept_name(name)))

    def find(self, name: str) -> Entry | None:
        """The entry of a name or synonym, spelled in any way; None where there is none, or several under it."""
        key = concept_name(name)
        return self.entries.get(key) or self._spelled.get(spelling(name))

    def find_spelled(self, spelled: str) -> Entry | None:
        """As `find`, given what `spelling` gives for a name."""
        return self._spelled.get(spelled)

    def sha256(self) -> str:
        """Of names and definitions: equal dictionaries give equal sentences."""
        text = json.dumps(sorted(self.definitions.items()), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _definition(self, key: str) -> str:
        known = self.definitions.get(key, "")
        if known:
            return known
        words = split_name(key)
        head = find_head_words(words)
        tails = [words, *(head[first:] for first in range(len(head)))]
        found = (self._spelled.get("".join(tail)) for tail in tails)
        return next((entry.definition for entry in found if entry is not None and entry.definition), "")

    def _by_spelling(self) -> dict[str, Entry]:
        """Entries by the spelling of their names, then of their synonyms; what could mean two of them is left out."""
        found: dict[str, Entry] = {}
        for level in (lambda entry: (entry.name,), lambda entry: entry.synonyms):
            meant = defaultdict[str, dict[str, Entry]](dict)
            for entry in self.entries.values():
                for name in level(entry):
                    if spelling(name) and spelling(name) not in found:
                        # names of one spelling and definition are one (`sneaker`, `Sneakers`); a bare one gives way
                        meant[spelling(name)][entry.definition] = entry
            for key, entries in meant.items():
                defined = [entry for definition, entry in entries.items() if definition]
                if len(defined) == 1 or not defined:
                    found[key] = (defined or list(entries.values()))[0]
        return found

    @classmethod
    def read(cls, file: Path | str) -> ConceptDictionary:
        """Read a dictionary written by `write`, or a category list that `read_entries` knows.

        Raises:
            ValueError: the file is neither.
        """
        return cls(read_entries(Path(file)))

    @classmethod
    def of_export(cls, folder: Path | str) -> ConceptDictionary | None:
        """The dictionary that an export was trained with; None where it read bare names, or is older than the file.

        Raises:
            ValueError: the file is there and is no dictionary.
        """
        file = Path(folder) / DICTIONARY
        return cls.read(file) if file.is_file() else None

    def to_json(self) -> list[dict[str, Any]]:
        """`[{"name": ..., "definition": ..., "synonyms"?: [...], "parents"?: [...]}, ...]`."""
        return [
            {"name": entry.name, "definition": entry.definition}
            | ({"synonyms": list(entry.synonyms)} if entry.synonyms else {})
            | ({"parents": list(entry.parents)} if entry.parents else {})
            for entry in self.entries.values()
        ]

    def write(self, file: Path) -> None:
        """Write what `to_json` gives."""
        file.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_categories(file: Path) -> list[tuple[str, str]]:
    """(name, definition) of a category file, as `read_entries`."""
    return [(entry.name, entry.definition) for entry in read_entries(file)]


def read_entries(file: Path) -> list[Entry]:
    """The entries of a category file: a JSON list of objects with `name` (and `definition` or `def`, `synonyms`,
    `parents`), a COCO or LVIS file with `categories`, a set's `dataset.json`, a text file with a name a line, or a CSV
    file whose last column is the name (`Objects365_names_fix.csv`).

    Raises:
        ValueError: the file is missing, is none of these, is not in UTF-8, or names a category twice.
    """
    if not file.is_file():
        raise ValueError(f"{file}: expected a category file, found none")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected text in UTF-8 ({error}); save the category file again as UTF-8") from error
    if file.suffix == ".csv":
        rows = [row[-1].strip() for row in csv.reader(text.splitlines()) if row]
        found = entries_of([row for row in rows if row], str(file))
    elif file.suffix == ".txt":
        found = entries_of([line.strip() for line in text.splitlines() if line.strip()], str(file))
    else:
        found = entries_of(_parse_list(text, file), str(file))
    often = Counter(concept_name(entry.name) for entry in found)  # `bow_tie` and `bow tie` are read as one
    twice = [name for name, count in often.items() if count > 1]
    if twice:
        raise ValueError(f"{file}: {len(twice)} category names occur twice (first: {twice[0]!r}); give each name once")
    if not found:
        raise ValueError(f"{file}: expected category names, found none")
    return found


def entries_of(categories: Iterable[Any], where: str) -> list[Entry]:
    """Entries of a list of categories. A `supercategory` that names another category of the list is its parent.

    Raises:
        ValueError: one has no name.
    """
    categories = list(categories)
    known = {concept_name(name) for name in map(_find_name, categories) if name}
    return [_make_entry(category, known, where) for category in categories]


def _parse_list(text: str, file: Path) -> list[Any]:
    try:
        content = parse_json(text, str(file))
    except ValueError as error:
        raise ValueError(f"{error}; give JSON, or a .txt with a name a line") from error
    if isinstance(content, dict):
        content = content.get("categories")
    if not isinstance(content, list):
        raise ValueError(f"{file}: expected a list of categories, or an object with 'categories'")
    return content


def _find_name(category: Any) -> str:
    name = category.get("name") if isinstance(category, Mapping) else category
    return name if isinstance(name, str) and name.strip() else ""


def _make_entry(category: Any, known: set[str], where: str) -> Entry:
    name = _find_name(category)
    if not name:
        raise ValueError(f"{where}: expected categories with a 'name', got {category!r}")
    if isinstance(category, str):
        category = {"name": name}
    above = concept_name(str(category.get("supercategory") or ""))
    parents = [*_keep_texts(category.get("parents")), *([above] if above in known - {concept_name(name)} else [])]
    definition = category.get("definition") or category.get("def") or ""
    parts = name.split("/") if "/" in name else []  # Objects365's `Monitor/TV` is either
    others = dict.fromkeys(_keep_texts([*_keep_texts(category.get("synonyms")), *parts]))
    synonyms = tuple(one for one in others if concept_name(one) != concept_name(name))
    return Entry(name, str(definition), synonyms, tuple(dict.fromkeys(map(concept_name, parents))))


def _keep_texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str) and one.strip()] if isinstance(value, list) else []


def merge_cards(cards: Iterable[Mapping[str, Any] | None], more: Iterable[Path] = ()) -> ConceptDictionary:
    """The categories of the sets' cards, and those of further category files; a card's name without a definition takes
    that of a file.
    """
    entries: list[Entry] = []
    for card in cards:
        entries += entries_of((card or {}).get("categories", ()), "a set's card")
    for file in more:
        entries += read_entries(file)
    return ConceptDictionary(entries)
