"""What scenes are composed of: named sprite sets. A sprite is an outline and a colour.

Coordinates of outlines: x to the right, y down, any unit; the layout scales them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""(K, 2) corners of a closed polygon, x and y."""


@dataclass(frozen=True)
class Sprite:
    """One drawable thing.

    Attributes:
        name: what captions and phrases call it.
        definition: one sentence, as LVIS has for each category.
        kind: the shape's name; sprites of one kind differ by colour.
        colour: RGB, 0 to 255.
        outline: (K, 2) outer border.
        hole: (K, 2) inner border, None where it is solid.
    """

    name: str
    definition: str
    kind: str
    colour: tuple[int, int, int]
    outline: Outline
    hole: Outline | None = None


COLOURS = {"red": (214, 40, 40), "green": (40, 160, 60), "blue": (45, 80, 215), "yellow": (240, 205, 40)}


def _ellipse(radius_x: float, radius_y: float, corners: int = 40) -> Outline:
    turn = np.linspace(0.0, 2.0 * math.pi, corners, endpoint=False)
    return np.stack([radius_x * np.cos(turn), radius_y * np.sin(turn)], axis=1)


def _star(points: int = 5, inner: float = 0.40) -> Outline:
    turn = -math.pi / 2 + np.arange(2 * points) * math.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def _moon() -> Outline:
    """A crescent, open to the right: the outer arc of one circle, back along another's."""
    outer = np.linspace(math.radians(60), math.radians(300), 30)
    horn_x, horn_y = math.cos(math.radians(60)), math.sin(math.radians(60))
    centre = horn_x + 0.15
    radius = math.hypot(horn_x - centre, horn_y)
    start = math.atan2(-horn_y, horn_x - centre) % (2 * math.pi)
    inner = np.linspace(start, 2 * math.pi - start, 24)
    arcs = [(np.cos(outer), np.sin(outer)), (centre + radius * np.cos(inner), radius * np.sin(inner))]
    return np.concatenate([np.stack(arc, axis=1) for arc in arcs])


def _cross(arm: float = 0.30) -> Outline:
    a = arm
    corners = [
        (-a, -1),
        (a, -1),
        (a, -a),
        (1, -a),
        (1, a),
        (a, a),
        (a, 1),
        (-a, 1),
        (-a, a),
        (-1, a),
        (-1, -a),
        (-a, -a),
    ]
    return np.array(corners, dtype=np.float64)


def _shapes() -> dict[str, tuple[Outline, Outline | None]]:
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)
    return {
        "circle": (_ellipse(1.0, 1.0), None),
        "square": (square, None),
        "triangle": (np.array([(0.0, -1.0), (1.0, 0.9), (-1.0, 0.9)]), None),
        "star": (_star(), None),
        "cross": (_cross(), None),
        "ring": (_ellipse(1.0, 1.0), _ellipse(0.58, 0.58)),
        "diamond": (np.array([(0.0, -1.0), (0.62, 0.0), (0.0, 1.0), (-0.62, 0.0)]), None),
        "moon": (_moon(), None),
    }


def _coloured_shapes() -> tuple[Sprite, ...]:
    return tuple(
        Sprite(f"{colour} {shape}", f"a {shape} that is {colour}", shape, rgb, outline, hole)
        for colour, rgb in COLOURS.items()
        for shape, (outline, hole) in _shapes().items()
    )


_SETS = {"shapes": _coloured_shapes}


@lru_cache(maxsize=4)
def sprite_set(name: str) -> tuple[Sprite, ...]:
    """The sprites of a set, in the order of their category ids.

    Raises:
        ValueError: there is no such set.
    """
    if name not in _SETS:
        raise ValueError(f"sprites: expected one of the known sets ({', '.join(_SETS)}), got {name!r}")
    return _SETS[name]()
