"""WordNet 3.0 for concept dictionaries: glosses of names, what they are kinds of, and more names of the same kinds.

The files are those of Debian's package `wordnet-base` (`apt install wordnet-base` puts them into /usr/share/wordnet) or
NLTK's own corpus `wordnet`; NLTK reads both.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloc.data.concepts import Entry
from cloc.phrases.mentions import spelling
from cloc.text import concept_name

DEBIAN = Path("/usr/share/wordnet")
_THING = "physical_entity.n.01"
"""What can be boxed is a kind of it; a name's first such sense is meant."""
_LEXICAL_FILES = 45


def open_wordnet(folder: Path = DEBIAN) -> Any:
    """NLTK's reader on WordNet's files.

    Args:
        folder: holds `data.noun`, `index.noun`, ...

    Raises:
        ValueError: NLTK or the files are missing; the message says how to get them.
    """
    if not (folder / "data.noun").is_file():
        raise ValueError(
            f"--wordnet {folder}: expected WordNet's files (data.noun, index.noun, ...), found none; install them with "
            "`apt install wordnet-base`, or name the folder that has them"
        )
    try:
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError as error:
        raise ValueError("--wordnet: expected the package nltk, found none; `pip install nltk`") from error

    class Reader(WordNetCorpusReader):
        """Debian ships no `lexnames`, the names of 45 files of WordNet's makers, of which nothing is read here."""

        def open(self, file: str) -> Any:
            if file == "lexnames" and not (folder / file).is_file():
                return io.StringIO("".join(f"{n:02d}\tfile{n}\t1\n" for n in range(_LEXICAL_FILES)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """No other language is read, so no other edition's numbers are needed."""

    folder = folder.resolve()
    if str(folder) not in nltk.data.path:  # NLTK reads below these folders only
        nltk.data.path.append(str(folder))
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there is no other language
            return Reader(str(folder), None)
    except (OSError, LookupError) as error:
        raise ValueError(f"--wordnet {folder}: cannot be read ({error}); install `wordnet-base` again") from error


def explained(entries: Iterable[Entry], wordnet: Any, senses: Mapping[str, str], most: int | None) -> list[Entry]:
    """The entries with WordNet's glosses where they have no definition, and further ones, breadth first.

    Args:
        entries: what is known; definitions stay as they are.
        wordnet: of `open_wordnet`.
        senses: synset of a name (`aerosol.n.02`), where a category file tells it.
        most: entries in all: kinds of what is there join (a dog's are `puppy`, `corgi`, ...) until there are so many;
            None for no further one.
    """
    found, meant = dict[str, Entry](), dict[str, Any]()
    for entry in entries:
        key = concept_name(entry.name)
        sense = _sense(entry, wordnet, senses.get(key))
        found[key] = entry if sense is None else replace(entry, definition=entry.definition or sense.definition())
        if sense is not None:
            meant[key] = sense
    taken = {spelling(name) for entry in found.values() for name in (entry.name, *entry.synonyms)}
    for sense in _kinds(list(meant.values())) if most is not None else ():
        if len(found) >= most:
            break
        names = [concept_name(name) for name in sense.lemma_names()]
        if spelling(names[0]) and spelling(names[0]) not in taken:
            found[names[0]] = Entry(names[0], sense.definition(), tuple(names[1:]))
            meant[names[0]] = sense
            taken.add(spelling(names[0]))
    by_sense = dict[str, str]()
    for key, sense in meant.items():
        by_sense.setdefault(sense.name(), key)
    return [
        replace(entry, parents=tuple(dict.fromkeys([*entry.parents, *_parents(meant[key], by_sense)])))
        if key in meant
        else entry
        for key, entry in found.items()
    ]


def _sense(entry: Entry, wordnet: Any, named: str | None) -> Any:
    """The synset of an entry: the one that is named, else the first one of a thing; None where there is none."""
    from nltk.corpus.reader.wordnet import WordNetError

    if named:
        try:
            return wordnet.synset(named)
        except (WordNetError, ValueError):
            pass  # of another edition, or made up, as some of LVIS's are
    for name in (entry.name, *entry.synonyms):
        for sense in wordnet.synsets(concept_name(name).replace(" ", "_"), pos="n"):
            if any(above.name() == _THING for path in sense.hypernym_paths() for above in path):
                return sense
    return None


def _kinds(senses: list[Any]) -> Iterator[Any]:
    """All that are kinds of the senses, a step down at a time, each once; no names of single persons or places."""
    seen, level = {sense.name() for sense in senses}, senses
    while level:
        below = []
        for sense in level:
            for kind in sense.hyponyms():
                if kind.name() not in seen:
                    seen.add(kind.name())
                    below.append(kind)
                    yield kind
        level = below


def _parents(sense: Any, by_sense: Mapping[str, str]) -> Iterator[str]:
    """The nearest names above a sense that are entries themselves."""
    for above in sense.hypernyms():
        name = by_sense.get(above.name())
        if name is not None:
            yield name
        else:
            yield from _parents(above, by_sense)
