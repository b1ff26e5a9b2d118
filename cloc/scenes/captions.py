"""Captions of scenes: true, varied, and silent about at least half of the objects, as captions of the web are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TEMPLATES = (
    "{}",
    "a picture of {}",
    "there is {} in the picture",
    "an image with {}",
    "{} on a plain background",
    "here we see {}",
    "{} and some other things",
    "a scene showing {}",
)


def with_article(name: str) -> str:
    """`a red circle`, `an apple`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def templates_for(background: str) -> tuple[str, ...]:
    """The templates, true of what lies behind the objects; as many for every background."""
    return TEMPLATES if background == "plain" else tuple(t.replace("plain", "patterned") for t in TEMPLATES)


def enumerated(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def caption_of(names: Sequence[str], rng: np.random.Generator, background: str = "plain") -> str:
    """Name half of the objects (rounded up), each kind once; fewer where there are fewer kinds.

    Args:
        names: one for each object of the scene.
        rng: of the scene.
        background: what lies behind the objects, `plain` or `textured`.
    """
    order = rng.permutation(len(names)).tolist()
    kinds = list(dict.fromkeys(names[index] for index in order))
    chosen = [with_article(name) for name in kinds[: (len(names) + 1) // 2]]
    return templates_for(background)[int(rng.integers(len(TEMPLATES)))].format(enumerated(chosen))
