"""`python -m cloc.label.chunker_quality --captions FILE --instances FILE`: how good a chunker is on COCO.

Recall: of the categories that an image has boxes of and that a caption of it names, the share that comes out as a
phrase (its last words are the name: `stop sign` of `a red stop sign`). A name is found in singular and plural.
Junk: the share of phrases that can be no thing by their form: no letter in them, or their last word is a function
word, an adverb, or a verb form after no word that could make a name of it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloc import command
from cloc.files import LARGEST, read_object
from cloc.phrases import CHUNKERS, Chunker, make_chunker

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_FUNCTION = frozenset(
    "the a an and or of in on at to with by for from is are was were be been being has have had it its he she they "
    "his her their this that these those there here as up down out off over under into very not no two three four "
    "five six some many several who which while".split()
)
_VERBAL = re.compile(r".{3,}(?:ing|ed|ly)$")
_NAMES_IN_ING = re.compile(r"(?:building|ceiling|clothing|painting|railing|wing|string|topping|icing|frosting)$")
_NAMES_IN_ED = re.compile(r"(?:bed|seed|weed|shed|sled|reed)$")
_NAMES_IN_LY = re.compile(r"(?:family|fly|belly|jelly|lily|assembly)$")


@dataclass(frozen=True)
class Quality:
    """Counts over captions.

    Attributes:
        captions: read.
        phrases: that came out.
        mentioned: pairs of a caption and an annotated category that it names.
        recalled: of these, came out as a phrase.
        junk: phrases that can be no thing.
        missed: categories that were named and did not come out, by name.
    """

    captions: int
    phrases: int
    mentioned: int
    recalled: int
    junk: int
    missed: Counter[str]

    @property
    def recall(self) -> float:
        """In [0, 1]; 0 where nothing was mentioned."""
        return self.recalled / self.mentioned if self.mentioned else 0.0

    @property
    def junk_rate(self) -> float:
        """In [0, 1]; 0 where there is no phrase."""
        return self.junk / self.phrases if self.phrases else 0.0


def measure(pairs: Iterable[tuple[str, Iterable[str]]], chunker: Chunker, limit: int = 20) -> Quality:
    """Measure a chunker.

    Args:
        pairs: a caption, and the names of the categories that its image has boxes of.
        chunker: the chunker.
        limit: phrases a caption.
    """
    totals, missed = Counter[str](), Counter[str]()
    for caption, categories in pairs:
        phrases = chunker(caption, limit)
        ends = [_make_plain(phrase) for phrase in phrases]
        totals.update(captions=1, phrases=len(phrases), junk=sum(map(is_junk, phrases)))
        text = _make_plain(caption)
        for name in set(categories):
            if not any(f" {form} " in f" {text} " for form in forms(name)):
                continue
            totals["mentioned"] += 1
            if any(f" {end}".endswith(f" {form}") for end in ends for form in forms(name)):
                totals["recalled"] += 1
            else:
                missed[name] += 1
    names = ("captions", "phrases", "mentioned", "recalled", "junk")
    return Quality(*(totals[name] for name in names), missed)


def forms(name: str) -> tuple[str, ...]:
    """Singular and plural of a category's name."""
    irregular = {"person": ("person", "people", "persons"), "sheep": ("sheep",), "knife": ("knife", "knives")}
    if name in irregular:
        return irregular[name]
    if name.endswith("mouse"):
        return (name, f"{name[:-5]}mice")
    return (name, f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s")


def is_junk(phrase: str) -> bool:
    """Whether a phrase can be no thing, by its form."""
    words = _WORD.findall(phrase.lower())
    if not words:
        return True
    last = words[-1]
    if last in _FUNCTION:
        return True
    named = _NAMES_IN_ING.search(last) or _NAMES_IN_ED.search(last) or _NAMES_IN_LY.search(last)
    return bool(_VERBAL.match(last)) and not named


def _make_plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def coco_pairs(captions: Path, instances: Path) -> list[tuple[str, frozenset[str]]]:
    """Each caption of images that have instances, with the names of their categories.

    Raises:
        ValueError: a file is missing or is not in COCO's layout.
    """
    captioned, boxes = (_read(path) for path in (captions, instances))
    try:
        names = {category["id"]: category["name"] for category in boxes["categories"]}
        of_image = defaultdict(set)
        for annotation in boxes["annotations"]:
            of_image[annotation["image_id"]].add(names[annotation["category_id"]])
        texts = [(entry["caption"], entry["image_id"]) for entry in captioned["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{captions}, {instances}: expected COCO's captions_*.json and instances_*.json ({error!r})"
        ) from error
    return [(text, frozenset(of_image[image])) for text, image in texts if image in of_image]


def _read(path: Path) -> dict:
    return read_object(path, "COCO's captions_*.json and instances_*.json", largest=LARGEST)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    parser = argparse.ArgumentParser(
        prog="python -m cloc.label.chunker_quality",
        description="Measure a chunker on COCO: the recall of the annotated categories that a caption names, the share "
        "of phrases that can be no thing, and the categories that it missed most often.",
    )
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help="captions_*.json")
    parser.add_argument("--instances", type=Path, required=True, metavar="FILE", help="instances_*.json")
    parser.add_argument("--chunker", default="rules", choices=CHUNKERS, help="default: %(default)s")
    args = parser.parse_args(arguments)
    return command.run(lambda: _format_figures(args))


def _format_figures(args: argparse.Namespace) -> None:
    found = measure(coco_pairs(args.captions, args.instances), make_chunker(args.chunker))
    print(
        f"captions: {found.captions:,}, phrases: {found.phrases:,} ({found.phrases / max(found.captions, 1):.2f} each)"
    )
    print(f"recall of mentioned categories: {found.recall:.4f} ({found.recalled:,} of {found.mentioned:,})")
    print(f"junk by form: {found.junk_rate:.4f} ({found.junk:,} of {found.phrases:,})")
    print(
        command.printable(
            "missed: " + (", ".join(f"{name} {count}" for name, count in found.missed.most_common(8)) or "nothing")
        )
    )


if __name__ == "__main__":
    sys.exit(main())
