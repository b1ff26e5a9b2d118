"""What is said of scenes: captions, and referring expressions that are true of one object only.

Captions are true, varied, and silent about at least half of the objects, as captions of the web are. Expressions are
true by construction and by a margin. Kinds: `name` (the plain name, where the scene has one object of that name) and
`relational` (the scene has several of that name, and a location, a size or another object singles one out). Directions
are those of the picture, centres are centres of the visible boxes, sizes are square roots of box areas.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloc.structures import Box

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


def add_article(name: str) -> str:
    """`a red circle`, `an apple`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def choose_templates(background: str) -> tuple[str, ...]:
    """The templates, true of what lies behind the objects; as many for every background."""
    return TEMPLATES if background == "plain" else tuple(t.replace("plain", "patterned") for t in TEMPLATES)


def join_texts(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def write_caption(names: Sequence[str], rng: np.random.Generator, background: str = "plain") -> str:
    """Name half of the objects (rounded up), each kind once; fewer where there are fewer kinds.

    Args:
        names: one for each object of the scene.
        rng: of the scene.
        background: what lies behind the objects, `plain` or `textured`.
    """
    order = rng.permutation(len(names)).tolist()
    kinds = list(dict.fromkeys(names[index] for index in order))
    chosen = [add_article(name) for name in kinds[: (len(names) + 1) // 2]]
    return choose_templates(background)[int(rng.integers(len(TEMPLATES)))].format(join_texts(chosen))


MARGIN = 0.10
"""By how much of the scene's side the referent lies further out than each rival, or than its neighbour."""

SIZE_RATIO = 1.25
"""How many times larger or smaller than each rival the referent is."""

SUPERLATIVES = (
    # among two, among more, axis (0 x, 1 y, 2 size), sign of "further"
    ("left", "leftmost", 0, -1),
    ("right", "rightmost", 0, +1),
    ("upper", "topmost", 1, -1),
    ("lower", "lowest", 1, +1),
    ("larger", "largest", 2, +1),
    ("smaller", "smallest", 2, -1),
)
NEIGHBOURS = (("left of", 0, -1), ("right of", 0, +1), ("above", 1, -1), ("below", 1, +1))


@dataclass(frozen=True)
class SceneExpression:
    """A text that singles out one object of its scene.

    Attributes:
        text: lower-case.
        kind: `name` or `relational`.
        object_index: which object of the scene.
    """

    text: str
    kind: str
    object_index: int


def find_expressions(
    names: Sequence[str], boxes_xyxy: Sequence[Box], side: float, anchors: Sequence[bool]
) -> list[SceneExpression]:
    """All true expressions of a scene, object by object.

    Args:
        names: one for each object.
        boxes_xyxy: visible boxes, in the unit of `side`.
        side: of the scene.
        anchors: which objects may be named as a neighbour (those of caption-only categories may not: in training
            they occur in captions only).
    """
    counts = Counter(names)
    # x and y of the centre, and the size, each as a share of the scene's side
    measures = [
        ((x0 + x1) / 2 / side, (y0 + y1) / 2 / side, math.sqrt((x1 - x0) * (y1 - y0)) / side)
        for x0, y0, x1, y1 in boxes_xyxy
    ]
    found = []
    for index, name in enumerate(names):
        if counts[name] == 1:
            found.append(SceneExpression(name, "name", index))
            continue
        rivals = [measures[other] for other in range(len(names)) if other != index and names[other] == name]
        texts = _write_superlatives(name, measures[index], rivals)
        for other, anchor in enumerate(names):
            if anchors[other] and counts[anchor] == 1:
                texts += _write_relations(name, anchor, measures[index], measures[other], rivals)
        found += [SceneExpression(text, "relational", index) for text in texts]
    return found


def _write_superlatives(name: str, own: tuple[float, ...], rivals: list[tuple[float, ...]]) -> list[str]:
    texts = []
    for of_two, of_more, axis, sign in SUPERLATIVES:
        word = of_two if len(rivals) == 1 else of_more
        if axis == 2:
            clear = all((own[2] / rival[2]) ** sign >= SIZE_RATIO for rival in rivals)
        else:
            clear = all(sign * (own[axis] - rival[axis]) >= MARGIN for rival in rivals)
        if clear:
            texts.append(f"the {word} {name}")
    return texts


def _write_relations(
    name: str, anchor: str, own: tuple[float, ...], there: tuple[float, ...], rivals: list[tuple[float, ...]]
) -> list[str]:
    texts = []
    for word, axis, sign in NEIGHBOURS:
        ahead, aside = sign * (own[axis] - there[axis]), abs(own[1 - axis] - there[1 - axis])
        # clearly on that side, more so than sideways, and every rival on the other side
        if ahead >= max(MARGIN, aside) and all(sign * (rival[axis] - there[axis]) <= 0 for rival in rivals):
            texts.append(f"the {name} {word} the {anchor}")
    return texts
