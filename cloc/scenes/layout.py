"""Where the objects of a scene lie, in [0, 1] of its side: the same at every resolution.

The rule of overlap: no two boxes have an IoU above `max_iou`, and no box is covered by another to more than
`max_covered` of its area (fields of the world; by default there is little).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cloc.scenes.sprites import Sprite
from cloc.scenes.world import WorldSpec, compute_odds, get_category_set

_PLACES = 24
_RESTARTS = 200


@dataclass(frozen=True)
class Placed:
    """One object: which sprite, its corners and hole in [0, 1] of the scene, and its box there.

    Attributes:
        sprite: place in the world's cast.
        outline, hole: (K, 2) x and y.
        box_xyxy: (4,) around the outline, before anything covers it.
        turn, shift: (2, 2) and (2,); `point @ turn + shift` takes a point of the sprite to the scene.
    """

    sprite: int
    outline: np.ndarray
    hole: np.ndarray | None
    box_xyxy: tuple[float, float, float, float]
    turn: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class _Turned:
    """A sprite turned and centred, its longer side 1, and how it came there."""

    outline: np.ndarray
    hole: np.ndarray | None
    extent: np.ndarray
    turn: np.ndarray
    middle: np.ndarray
    longest: float


def lay_out(spec: WorldSpec, split: str, rng: np.random.Generator) -> tuple[Placed, ...]:
    """Draw the objects of one scene of a split, the largest first (later ones cover earlier ones).

    Raises:
        ValueError: the objects do not fit, because the spec asks for many large ones.
    """
    count = int(rng.integers(spec.min_objects, spec.max_objects + 1))
    kinds = np.searchsorted(compute_odds(spec, split), rng.random(count))
    if count > 1 and rng.random() < spec.twin_share:
        kinds[1] = kinds[0]
    most = math.radians(spec.rotation)
    tilts = rng.uniform(-most, most, count)
    sprites = get_category_set(spec).sprites
    shapes = [_tilt(sprites[int(kind)], float(tilt)) for kind, tilt in zip(kinds, tilts, strict=True)]
    for _ in range(_RESTARTS):
        placed = _place(spec, rng, [shape.extent for shape in shapes])
        if placed is not None:
            break
    else:
        raise ValueError(
            f"scenes: {count} objects of {spec.min_side} to {spec.max_side} of the side do not fit with little "
            "overlap; lower max_objects or min_side"
        )
    objects = []
    for number, (centre, scale) in placed:
        shape = shapes[number]
        outline = shape.outline * scale + centre
        hole = None if shape.hole is None else shape.hole * scale + centre
        low, high = centre - shape.extent * scale / 2, centre + shape.extent * scale / 2
        unit = scale / shape.longest
        turn, shift = shape.turn * unit, centre - shape.middle * unit
        objects.append(Placed(int(kinds[number]), outline, hole, (*low.tolist(), *high.tolist()), turn, shift))
    return tuple(objects)


def _tilt(sprite: Sprite, tilt: float) -> _Turned:
    """A sprite turned by `tilt` (radians)."""
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    outline = sprite.outline @ turn
    low, high = outline.min(axis=0), outline.max(axis=0)
    middle, longest = (low + high) / 2, (high - low).max()
    hole = None if sprite.hole is None else (sprite.hole @ turn - middle) / longest
    return _Turned((outline - middle) / longest, hole, (high - low) / longest, turn, middle, float(longest))


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
        free = np.flatnonzero(_overlap_little(candidates, boxes, spec))
        if len(free) == 0:
            return None
        boxes = np.concatenate([boxes, candidates[free[:1]]])
        placed.append((number, (centres[free[0]], side)))
    return placed


def _overlap_little(candidates_xyxy: np.ndarray, boxes_xyxy: np.ndarray, spec: WorldSpec) -> np.ndarray:
    """(P,) which candidates (all of one size) keep the rule with all (K, 4) boxes."""
    if len(boxes_xyxy) == 0:
        return np.ones(len(candidates_xyxy), dtype=bool)
    low = np.maximum(candidates_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    high = np.minimum(candidates_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    own = (candidates_xyxy[:, 2:] - candidates_xyxy[:, :2]).prod(axis=1)[:, None]
    others = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)[None, :]
    covered = shared <= spec.max_covered * np.minimum(own, others)
    return (covered & (shared <= spec.max_iou * (own + others - shared))).all(axis=1)
