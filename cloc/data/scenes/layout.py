"""Where the objects of a scene lie, in [0, 1] of its side: the same at every resolution.

The rule of little overlap: no two boxes have an IoU above `MAX_IOU`, and no box is covered by another to more than
`MAX_COVERED` of its area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cloc.data.scenes.sprites import sprite_set
from cloc.data.scenes.world import WorldSpec, category_odds

MAX_IOU = 0.05
MAX_COVERED = 0.10
MAX_TILT = math.radians(12.0)
_PLACES = 24
_RESTARTS = 200


@dataclass(frozen=True)
class Placed:
    """One object: which sprite, its corners and hole in [0, 1] of the scene, and its box there.

    Attributes:
        sprite: number in the sprite set.
        outline, hole: (K, 2) x and y.
        box_xyxy: (4,) around the outline, before anything covers it.
    """

    sprite: int
    outline: np.ndarray
    hole: np.ndarray | None
    box_xyxy: tuple[float, float, float, float]


def lay_out(spec: WorldSpec, rng: np.random.Generator) -> tuple[Placed, ...]:
    """Draw the objects of one scene, the largest first (later ones cover earlier ones).

    Raises:
        ValueError: the objects do not fit, because the spec asks for many large ones.
    """
    count = int(rng.integers(spec.min_objects, spec.max_objects + 1))
    kinds = np.searchsorted(category_odds(spec.sprites, spec.tail), rng.random(count))
    if count > 1 and rng.random() < spec.twin_share:
        kinds[1] = kinds[0]
    tilts = rng.uniform(-MAX_TILT, MAX_TILT, count)
    shapes = [_tilted(spec.sprites, int(kind), float(tilt)) for kind, tilt in zip(kinds, tilts, strict=True)]
    for _ in range(_RESTARTS):
        placed = _place(spec, rng, [extent for _, _, extent in shapes])
        if placed is not None:
            break
    else:
        raise ValueError(
            f"scenes: {count} objects of {spec.min_side} to {spec.max_side} of the side do not fit with little "
            "overlap; lower max_objects or min_side"
        )
    objects = []
    for number, (centre, scale) in placed:
        outline, hole, extent = shapes[number]
        outline = outline * scale + centre
        hole = None if hole is None else hole * scale + centre
        low, high = centre - extent * scale / 2, centre + extent * scale / 2
        objects.append(Placed(int(kinds[number]), outline, hole, (*low.tolist(), *high.tolist())))
    return tuple(objects)


def _tilted(sprites: str, kind: int, tilt: float) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Outline and hole turned by `tilt` (radians), centred, the longer side 1; and the (2,) width and height."""
    sprite = sprite_set(sprites)[kind]
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    outline = sprite.outline @ turn
    low, high = outline.min(axis=0), outline.max(axis=0)
    middle, longest = (low + high) / 2, (high - low).max()
    hole = None if sprite.hole is None else (sprite.hole @ turn - middle) / longest
    return (outline - middle) / longest, hole, (high - low) / longest


def _place(
    spec: WorldSpec, rng: np.random.Generator, extents: list[np.ndarray]
) -> list[tuple[int, tuple[np.ndarray, float]]] | None:
    """A (2,) centre and a side for each object, the largest first; None where one finds no room."""
    count = len(extents)
    # many objects cannot all be large: the ceiling falls with the count so that few layouts are thrown away
    ceiling = max(spec.min_side, min(spec.max_side, 1.15 / math.sqrt(count)))
    sides = rng.uniform(spec.min_side, ceiling, count)
    boxes = np.zeros((0, 4))
    placed = []
    for number in np.argsort(-sides, kind="stable").tolist():
        side = float(sides[number])
        half = extents[number] * side / 2
        centres = half + rng.random((_PLACES, 2)) * (1.0 - 2 * half)
        candidates = np.concatenate([centres - half, centres + half], axis=1)
        free = np.flatnonzero(_little_overlap(candidates, boxes))
        if len(free) == 0:
            return None
        boxes = np.concatenate([boxes, candidates[free[:1]]])
        placed.append((number, (centres[free[0]], side)))
    return placed


def _little_overlap(candidates_xyxy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """(P,) which candidates (all of one size) keep the rule with all (K, 4) boxes."""
    if len(boxes_xyxy) == 0:
        return np.ones(len(candidates_xyxy), dtype=bool)
    low = np.maximum(candidates_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    high = np.minimum(candidates_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    own = (candidates_xyxy[:, 2:] - candidates_xyxy[:, :2]).prod(axis=1)[:, None]
    others = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)[None, :]
    fine = (shared <= MAX_COVERED * np.minimum(own, others)) & (shared <= MAX_IOU * (own + others - shared))
    return fine.all(axis=1)
