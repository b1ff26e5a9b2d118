"""`python -m cloc.convert.dictionary`: a concept dictionary from category files and captions (DetCLIPv2 3.1).

Grounding data takes its negatives from it, and every kind of data its definitions: `data.N.dictionary` in a config.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from cloc import command
from cloc.convert.wordnet import DEBIAN, explained, open_wordnet
from cloc.data.concepts import RECIPE, ConceptDictionary, Entry, read_entries
from cloc.data.tables import open_samples
from cloc.files import read_json
from cloc.phrases import noun_phrases
from cloc.structures import DataError
from cloc.text import canonical, concept_name


def captions_of(path: Path, skipped: Counter[str], progress: bool = True) -> Iterable[str]:
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
    senses = dict(pair for file in categories for pair in synsets_of(file).items())
    return ConceptDictionary(explained(entries.values(), reader, senses, concepts)), len(phrases)


def synsets_of(file: Path) -> dict[str, str]:
    """Name to synset (`aerosol.n.02`), where a category file tells it, as LVIS's do."""
    if file.suffix != ".json":
        return {}
    content = read_json(file, "a category file")
    listed = content.get("categories") if isinstance(content, dict) else content
    told = [one for one in listed or () if isinstance(one, dict) and isinstance(one.get("synset"), str)]
    return {concept_name(str(one.get("name"))): one["synset"] for one in told}


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
    texts = (text for place in asked.captions for text in captions_of(place, skipped))
    found, phrases = build_dictionary(asked.categories, texts, asked.least, asked.limit, asked.wordnet, asked.concepts)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found.write(asked.out)
    defined = sum(bool(text) for text in found.definitions.values())
    told = f"{len(found):,} concepts, {phrases:,} of them from captions, {defined:,} with a definition: {asked.out}"
    print(command.printable(told))
    if skipped:
        print(f"warning: samples left out: {json.dumps(skipped, sort_keys=True)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
