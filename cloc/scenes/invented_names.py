"""Made-up words: names that tell nothing, so that what a category looks like must be learned from boxes or captions."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

_CONSONANTS = "bdfgjklmnprtvz"
_VOWELS = "aeiou"


@lru_cache(maxsize=8)
def coined_words(count: int) -> tuple[str, ...]:
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
        for first, second in (divmod(place, number) for place in chosen)
    )
