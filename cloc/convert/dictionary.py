"""`python -m cloc.convert.dictionary`: a concept dictionary from category files and captions (DetCLIPv2 3.1).

WordNet 3.0 gives glosses of names, what they are kinds of, and more names of the same kinds. Its files are those of
Debian's package `wordnet-base` (`apt install wordnet-base` puts them into /usr/share/wordnet) or NLTK's own corpus
`wordnet`; NLTK reads both.

Grounding data takes its negatives from it, and every kind of data its definitions: `data.N.dictionary` in a config.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc import command
from cloc.data.concepts import RECIPE, ConceptDictionary, Entry, read_entries
from cloc.data.tables import open_samples
from cloc.files import read_json
from cloc.phrases import noun_phrases
from cloc.phrases.mentions import spelling
from cloc.structures import DataError
from cloc.text import canonical, concept_name


def read_captions(path: Path, skipped: Counter[str], progress: bool = True) -> Iterable[str]:
    """All captions of a set; samples that cannot be read are counted by reason.

    Raises:
        ValueError: there is nothing that can be read.
    """
    samples = open_samples(path)
    with tqdm(total=samples.num_samples, desc=str(path), unit="sample", disable=not progress) as bar:
        for shard, count in enumerate(samples.counts):
            for row in range(count):
                bar.update()
                try:
                    sample = samples.read_sample(shard, row)
                except DataError as error:
                    skipped[error.reason] += 1
                    continue
                yield from sample.extras.get("captions") or (sample.caption,)


def build_dictionary(
    categories: Sequence[Path],
    captions: Iterable[str],
    least: int = 2,
    limit: int | None = None,
    wordnet: Path | None = None,
    concepts: int | None = None,
) -> tuple[ConceptDictionary, int]:
    """Names of category files, the noun phrases that captions use often enough, and names of the same kinds.

    Args:
        categories: files as `read_entries` takes them; of two definitions of a name the first counts.
        captions: any texts.
        least: captions that must hold a phrase.
        limit: phrases at most, the most frequent first; None for all.
        wordnet: folder of WordNet's files, which define what the category files do not; None for none.
        concepts: entries in all; kinds of the names join by WordNet until there are so many. None for no further one.

    Returns:
        The dictionary, category names before phrases before further names, and how many phrases came from the captions
        alone. A phrase takes the definition of the category that is its head (`red kettle`: that of `kettle`), where
        there is one.

    Raises:
        ValueError: a bad category file, nothing found, WordNet is missing, or a number below 1.
    """
    if least < 1 or (limit is not None and limit < 1) or (concepts is not None and concepts < 1):
        raise ValueError(f"--least, --limit, --concepts: expected at least 1, got {least}, {limit} and {concepts}")
    if concepts is not None and wordnet is None:
        raise ValueError("--concepts: further names come from WordNet; add --wordnet")
    reader = None if wordnet is None else open_wordnet(wordnet)
    known = ConceptDictionary([entry for file in categories for entry in read_entries(file)])
    entries, often = dict(known.entries), Counter[str]()
    for caption in captions:
        often.update({concept_name(phrase) for phrase in noun_phrases(canonical(caption))})
    ranked = sorted((-count, phrase) for phrase, count in often.items() if count >= least and phrase not in entries)
    phrases = [phrase for _, phrase in ranked[:limit]]
    if not entries and not phrases:
        raise ValueError(
            f"no concept: no category file, and no noun phrase in {least} captions or more; lower --least or add "
            "--categories FILE"
        )
    for phrase in phrases:
        entries[phrase] = Entry(phrase, known.definition(phrase))
    if reader is None:
        return ConceptDictionary(entries.values()), len(phrases)
    senses = dict(pair for file in categories for pair in read_synsets(file).items())
    return ConceptDictionary(explain_entries(entries.values(), reader, senses, concepts)), len(phrases)


def read_synsets(file: Path) -> dict[str, str]:
    """Name to synset (`aerosol.n.02`), where a category file tells it, as LVIS's do."""
    if file.suffix != ".json":
        return {}
    content = read_json(file, "a category file")
    listed = content.get("categories") if isinstance(content, dict) else content
    named = [one for one in listed or () if isinstance(one, dict) and isinstance(one.get("synset"), str)]
    return {concept_name(str(one.get("name"))): one["synset"] for one in named}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cloc.convert.dictionary",
        description="Make a concept dictionary: the names and definitions of category files, and the noun phrases that "
        "captions use often. Training reads it through data.N.dictionary; detection through --definitions.",
        epilog=f"The dictionary of the DetCLIPv2 recipes: {RECIPE}",
    )
    parser.add_argument(
        "--categories", type=Path, nargs="*", default=[], metavar="FILE",
        help="JSON with names and definitions (LVIS's, COCO's instances file, a set's dataset.json), .txt, or .csv "
        "with the name last",
    )  # fmt: skip
    parser.add_argument(
        "--captions", type=Path, nargs="*", default=[], metavar="DATASET", help="folders of shards, or Parquet"
    )
    parser.add_argument("--least", type=int, default=2, help="captions that must hold a phrase (default: 2)")
    parser.add_argument("--limit", type=int, help="phrases at most, the most frequent first (default: all)")
    parser.add_argument(
        "--wordnet", type=Path, nargs="?", const=DEBIAN, metavar="DIR",
        help="define by WordNet what the files do not; its files lie in DIR (default: %(const)s, of Debian's package "
        "wordnet-base); needs nltk",
    )  # fmt: skip
    parser.add_argument(
        "--concepts", type=int, metavar="N", help="add kinds of these names by WordNet until there are N concepts"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write; must not exist")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    asked = parse(arguments)
    return command.run(lambda: _write(asked))


def _write(asked: argparse.Namespace) -> None:
    skipped = Counter[str]()
    if asked.out.exists():
        raise ValueError(f"{asked.out}: is there already; name another --out")
    texts = (text for dataset in asked.captions for text in read_captions(dataset, skipped))
    found, phrases = build_dictionary(asked.categories, texts, asked.least, asked.limit, asked.wordnet, asked.concepts)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found.write(asked.out)
    defined = sum(bool(text) for text in found.definitions.values())
    summary = f"{len(found):,} concepts, {phrases:,} of them from captions, {defined:,} with a definition: {asked.out}"
    print(command.printable(summary))
    if skipped:
        print(f"warning: samples left out: {json.dumps(skipped, sort_keys=True)}", file=sys.stderr)


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


def explain_entries(entries: Iterable[Entry], wordnet: Any, senses: Mapping[str, str], most: int | None) -> list[Entry]:
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
        sense = _find_sense(entry, wordnet, senses.get(key))
        found[key] = entry if sense is None else replace(entry, definition=entry.definition or sense.definition())
        if sense is not None:
            meant[key] = sense
    taken = {spelling(name) for entry in found.values() for name in (entry.name, *entry.synonyms)}
    for sense in _find_kinds(list(meant.values())) if most is not None else ():
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
        replace(entry, parents=tuple(dict.fromkeys([*entry.parents, *_find_parents(meant[key], by_sense)])))
        if key in meant
        else entry
        for key, entry in found.items()
    ]


def _find_sense(entry: Entry, wordnet: Any, named: str | None) -> Any:
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


def _find_kinds(senses: list[Any]) -> Iterator[Any]:
    """All that are kinds of the senses, a step down at a time, each once; no names of single persons or places."""
    found, level = {sense.name() for sense in senses}, senses
    while level:
        below = []
        for sense in level:
            for kind in sense.hyponyms():
                if kind.name() not in found:
                    found.add(kind.name())
                    below.append(kind)
                    yield kind
        level = below


def _find_parents(sense: Any, by_sense: Mapping[str, str]) -> Iterator[str]:
    """The nearest names above a sense that are entries themselves."""
    for above in sense.hypernyms():
        name = by_sense.get(above.name())
        if name is not None:
            yield name
        else:
            yield from _find_parents(above, by_sense)


if __name__ == "__main__":
    sys.exit(main())
