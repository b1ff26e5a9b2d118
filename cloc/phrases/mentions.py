"""Whether a text names a thing: names and texts are compared as sequences of words in one form.

`Two kids, near step-ladders.` names `kid`, `step ladder` and `Stepladder`, and no `add`. Case, punctuation, hyphens,
blanks inside a compound and the plural make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from cloc.phrases.words import DETERMINERS, MEASURES, NUMBERS

LONGEST = 6
"""Words of a name that are looked for in a text; no category of LVIS or Objects365 has more outside brackets."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_REMARK = re.compile(r"\([^)]*\)")
_BEFORE = DETERMINERS | NUMBERS
_AFTER_HEAD = frozenset(
    """of in on at by with without from to into onto over under above below behind beside between near and or for that
    who which while wearing holding sitting standing riding""".split()
)
"""Words behind which a phrase says more of its head: `man in a blue shirt`."""

_IRREGULAR = {
    "people": "person", "children": "child", "feet": "foot", "teeth": "tooth", "geese": "goose", "mice": "mouse",
    "oxen": "ox", "dice": "dy", "lens": "lens", "lenses": "lens", "cacti": "cactus", "octopi": "octopus",
    "fungi": "fungus", "hippopotami": "hippopotamus", "knives": "knife", "wives": "wife", "lives": "life",
    "leaves": "leaf", "loaves": "loaf", "shelves": "shelf", "bookshelves": "bookshelf", "halves": "half",
    "wolves": "wolf", "calves": "calf", "scarves": "scarf", "hooves": "hoof", "elves": "elf", "thieves": "thief",
    "dwarves": "dwarf", "housewives": "housewife", "penknives": "penknife", "jackknives": "jackknife",
    "emus": "emu", "menus": "menu", "tutus": "tutu", "gnus": "gnu", "caribous": "caribou", "gas": "gas", "gases": "gas",
    "canvas": "canvas", "canvases": "canvas", "women": "woman", "men": "man", "grey": "gray",
}  # fmt: skip
_NO_PLURAL_IN_IS = frozenset(
    """tennis iris pelvis basis chassis trellis debris analysis crisis axis oasis penis paris this is his
    clematis bronchitis metropolis ibis cannabis portcullis""".split()
)
_NO_PLURAL_IN_MEN = frozenset("specimen regimen abdomen acumen ramen omen semen stamen amen cyclamen".split())


@lru_cache(maxsize=100_000)
def singular(word: str) -> str:
    """One form of a lower-case word for its singular and its plural; not always a word of English (`shoe`: `sho`)."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("men") and len(word) > 3 and word not in _NO_PLURAL_IN_MEN:
        return word[:-3] + "man"
    if len(word) > 2 and word.endswith("s"):
        ends_alone = word.endswith(("ss", "us")) or word in _NO_PLURAL_IN_IS
        if word.endswith(("xes", "ches", "shes", "sses", "zzes")):
            word = word[:-2]
        elif word.endswith("uses") and not word.endswith(("ouses", "auses")):
            word = word[:-2]
        elif not ends_alone:
            word = word[:-1]
    if len(word) > 2 and word.endswith("ie"):
        return word[:-2] + "y"
    return word[:-1] if len(word) > 2 and word.endswith(("oe", "xe")) else word


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in one form: lower case, accents and punctuation away, hyphens as blanks, singular."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "'")).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    found = []
    for match in _WORD.finditer(plain):
        word = match.group().removesuffix("'s").removesuffix("'").replace("'", "")
        found.append(singular(word))
    return tuple(found)


def split_name(name: str) -> tuple[str, ...]:
    """The words of a name: remarks in brackets and determiners or numbers in front are no part of it."""
    words = words_of(_REMARK.sub(" ", name)) or words_of(name)
    first = next((i for i, word in enumerate(words) if word not in _BEFORE), 0)
    return words[first:]


@lru_cache(maxsize=200_000)
def spelling(name: str) -> str:
    """What equal names have in common: `Surf boards`, `surfboard` and `the surf-board` have one spelling."""
    return "".join(split_name(name))


def find_head_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """The part of a phrase that ends in its head: `young man` of `young man in red`, `pizza` of `slice of pizza`."""
    for position in range(1, len(words)):
        if words[position] not in _AFTER_HEAD:
            continue
        counted = words[position] == "of" and words[position - 1] in _MEASURES and position + 1 < len(words)
        return find_head_words(words[position + 1 :]) if counted else words[:position]
    return words


_MEASURES = frozenset(map(singular, MEASURES))


class Mentions:
    """The names that some texts speak of.

    Args:
        texts: captions, phrases.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.spellings: set[str] = set()
        for text in texts:
            words = words_of(text)
            for first in range(len(words)):
                joined = ""
                for word in words[first : first + LONGEST]:
                    joined += word
                    self.spellings.add(joined)

    def __contains__(self, name: str) -> bool:
        return spelling(name) in self.spellings

    def any_of(self, names: Iterable[str]) -> bool:
        """Whether one of the names, such as a category's synonyms, stands in the texts."""
        return any(name in self for name in names)
