"""What scenes are composed of: sprites. A sprite is an outline and a colour, or a picture and its convex hull.

Coordinates of outlines: x to the right, y down, any unit; the layout scales them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Outline = NDArray[np.float64]
"""(K, 2) corners of a closed polygon, x and y."""


@dataclass(frozen=True, eq=False)
class Sprite:
    """One drawable thing.

    Attributes:
        name: what captions and phrases call it.
        definition: one sentence, as LVIS has for each category.
        kind: the shape's name; sprites of one kind differ by colour.
        colour: RGB, 0 to 255.
        outline: (K, 2) outer border.
        hole: (K, 2) inner border, None where it is solid.
        picture: RGBA, its pixels are the outline's unit; None where outline and colour are all there is.
    """

    name: str
    definition: str
    kind: str
    colour: tuple[int, int, int]
    outline: Outline
    hole: Outline | None = None
    picture: Image.Image | None = None


COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 205, 40),
    "purple": (150, 50, 190),
    "cyan": (60, 205, 215),
    "white": (240, 240, 240),
    "black": (18, 18, 18),
}


def _ellipse(radius_x: float, radius_y: float, corners: int = 40) -> Outline:
    turn = np.linspace(0.0, 2.0 * math.pi, corners, endpoint=False)
    return np.stack([radius_x * np.cos(turn), radius_y * np.sin(turn)], axis=1)


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
    """Few and unlike each other: full, half, arms, hollow. They can be told apart at seven pixels."""
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)
    return {
        "square": (square, None),
        "triangle": (np.array([(0.0, -1.0), (1.0, 0.9), (-1.0, 0.9)]), None),
        "cross": (_cross(), None),
        "ring": (_ellipse(1.0, 1.0), _ellipse(0.58, 0.58)),
    }


@lru_cache(maxsize=1)
def coloured_shapes() -> tuple[Sprite, ...]:
    """Each shape in each colour, colour by colour."""
    return tuple(
        Sprite(f"{colour} {shape}", f"a {shape} that is {colour}", shape, rgb, outline, hole)
        for colour, rgb in COLOURS.items()
        for shape, (outline, hole) in _shapes().items()
    )
