"""Which sprites a world has, under which names (true or invented), and which of them never have a box in training."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cloc.scenes.sprites import Sprite, choose_emoji, make_coloured_shapes

SPRITES = ("shapes", "emoji")
NAMES = ("descriptive", "coined")
WORDS = ("shared", "disjoint")


@dataclass(frozen=True)
class SceneCategory:
    """One kind of object: id from 1, name, definition, and whether it never has a box in training."""

    id: int
    name: str
    definition: str
    caption_only: bool


@dataclass(frozen=True, eq=False)
class CategorySet:
    """The sprites of a world and their categories, in the same order; ids are places plus one."""

    sprites: tuple[Sprite, ...]
    categories: tuple[SceneCategory, ...]


@lru_cache(maxsize=16)
def make_category_set(sprites: str, count: int | None, names: str, caption_only: int, words: str) -> CategorySet:
    """Choose sprites, names and caption-only categories; always the same ones for the same arguments.

    Args:
        sprites: `shapes` or `emoji`.
        count: how many categories, None for all of the set.
        names: `descriptive` (what the picture shows) or `coined` (a made-up word each, which tells nothing).
        caption_only: how many categories have no box in training. They are spread over the list, so that each colour
            and shape also occurs with boxes.
        words: `shared` or `disjoint`: caption-only names share no word with any other name, so that only a caption can
            teach what they mean. A coloured shape's name is made of words of other shapes: `disjoint` needs coined
            names there. Definitions tell nothing beyond the name then either.

    Raises:
        ValueError: a word is unknown, the font is missing, or so many categories do not exist.
    """
    for field, value, known in (("sprites", sprites, SPRITES), ("names", names, NAMES), ("words", words, WORDS)):
        if value not in known:
            raise ValueError(f"{field}: expected one of the known ones ({', '.join(known)}), got {value!r}")
    chosen = choose_emoji(count) if sprites == "emoji" else _choose_shapes(count)
    if not 0 <= caption_only < len(chosen):
        raise ValueError(f"caption_only: expected 0 to {len(chosen) - 1}, got {caption_only!r}")
    if names == "coined":
        called = [(word, f"a thing that is called {word}") for word in invent_words(len(chosen))]
    else:
        called = [(sprite.name, sprite.definition) for sprite in chosen]
    listed = [name for name, _ in called]
    candidates = list(range(len(chosen))) if words == "shared" else _find_unshared(listed)
    if len(candidates) < caption_only:
        raise ValueError(
            f"caption_only_words: expected {caption_only} names that share no word with another one, got "
            f"{len(candidates)} among the {names} names of {sprites}; give names=coined, or sprites=emoji"
        )
    held_out = _spread(candidates, caption_only)
    known = tuple(SceneCategory(i + 1, name, definition, i in held_out) for i, (name, definition) in enumerate(called))
    return CategorySet(chosen, known)


def _choose_shapes(count: int | None) -> tuple[Sprite, ...]:
    everything = make_coloured_shapes()
    if count is None:
        return everything
    if not 2 <= count <= len(everything):
        raise ValueError(f"num_categories: expected 2 to {len(everything)} shapes, or none for all, got {count}")
    chosen = np.random.default_rng(len(everything)).permutation(len(everything))[:count]
    return tuple(everything[i] for i in sorted(chosen.tolist()))


def words_of(name: str) -> set[str]:
    """The words of a name; a hyphen parts words."""
    return set(re.findall(r"\w+", name.lower()))


def _find_unshared(names: list[str]) -> list[int]:
    """Places of the names none of whose words occurs in another name."""
    often = Counter(word for name in names for word in words_of(name))
    return [i for i, name in enumerate(names) if all(often[word] == 1 for word in words_of(name))]


def _spread(candidates: list[int], count: int) -> set[int]:
    """One candidate in each stretch of the list, a place further each time: another colour and another shape."""
    step = len(candidates) // max(count, 1)
    return {candidates[number * step + (5 * number + 1) % step] for number in range(count)}


_CONSONANTS = "bdfgjklmnprtvz"
_VOWELS = "aeiou"


@lru_cache(maxsize=8)
def invent_words(count: int) -> tuple[str, ...]:
    """`count` pronounceable words of three syllables, always the same ones; two share at most one syllable in place.

    The third syllable is decided by the first two (a Latin square), which keeps the words apart without a search.

    Raises:
        ValueError: more words than there are.
    """
    syllables = ["".join(pair) for pair in itertools.product(_CONSONANTS, _VOWELS)]
    number = len(syllables)
    if not 0 <= count <= number**2:
        raise ValueError(f"coined words: expected 0 to {number**2}, got {count}")
    chosen = np.random.default_rng(number).permutation(number**2)[:count].tolist()
    return tuple(
        syllables[first] + syllables[second] + syllables[(first + second) % number]
        for first, second in (divmod(i, number) for i in chosen)
    )
