"""Objects as pixels: the patch of each, what of it can be seen, and painting it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from cloc.scenes.layout import Placed
from cloc.scenes.sprites import Sprite
from cloc.structures import Box

_OVERSAMPLING = 4


@dataclass(frozen=True)
class Patch:
    """One object before anything covers it.

    Attributes:
        cover: L, how far each pixel is covered, 0 to 255.
        solid: mode 1, the pixels that are at least half covered.
        corner: left and top in the scene.
        ink: RGB colour, or an RGB image of the patch's size.
        area: solid pixels.
    """

    cover: Image.Image
    solid: Image.Image
    corner: tuple[int, int]
    ink: tuple[int, int, int] | Image.Image
    area: int


def cut_out(sprite: Sprite, thing: Placed, size: int) -> Patch:
    """The patch of a placed sprite in a scene of `size` pixels."""
    x0, y0, x1, y1 = (value * size for value in thing.box_xyxy)
    left, top = math.floor(x0), math.floor(y0)
    width, height = min(math.ceil(x1), size) - left, min(math.ceil(y1), size) - top
    if sprite.picture is None:
        cover, ink = _filled(thing, size, (left, top), (width, height)), sprite.colour
    else:
        drawn = _turned(sprite, thing, size, (left, top), (width, height))
        cover, ink = drawn.getchannel("A"), drawn.convert("RGB")
    solid = cover.convert("1", dither=Image.Dither.NONE)
    return Patch(cover, solid, (left, top), ink, solid.histogram()[255])


def _filled(thing: Placed, size: int, corner: tuple[int, int], extent: tuple[int, int]) -> Image.Image:
    """How far an outline covers each pixel."""
    large = Image.new("L", (extent[0] * _OVERSAMPLING, extent[1] * _OVERSAMPLING))
    pen = ImageDraw.Draw(large)
    for border, ink in ((thing.outline, 255), (thing.hole, 0)):
        if border is not None:
            # a pixel of the large mask is centred half a pixel in
            corners = (border * size - corner) * _OVERSAMPLING - 0.5
            pen.polygon(corners.ravel().tolist(), fill=ink)
    return large.reduce(_OVERSAMPLING)


@lru_cache(maxsize=4096)
def _reduced(sprite: Sprite, factor: int) -> Image.Image:
    """A picture made smaller by a whole factor, so that the turning has little left to shrink (it would alias)."""
    return sprite.picture.reduce(factor) if factor > 1 else sprite.picture


def _turned(sprite: Sprite, thing: Placed, size: int, corner: tuple[int, int], extent: tuple[int, int]) -> Image.Image:
    """The RGBA patch of a picture."""
    pixels = math.sqrt(abs(np.linalg.det(thing.turn))) * size  # of the scene for one of the picture
    factor = max(1, math.floor(1 / pixels))
    # PIL asks where in the picture a pixel of the patch comes from: the inverse of `point @ turn + shift`
    back = np.linalg.inv(thing.turn) / size
    start = (np.array(corner) - thing.shift * size) @ back
    (a, d), (b, e) = (back / factor).tolist()
    c, f = (start / factor).tolist()
    picture = _reduced(sprite, factor)
    return picture.transform(extent, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


def shown(patches: Sequence[Patch]) -> list[tuple[Image.Image, tuple[int, int]]]:
    """(pixels, mode 1; their left and top in the scene) of what can be seen of each; later ones lie above."""
    left_over: list[tuple[Image.Image, tuple[int, int]]] = []
    for patch in patches:
        for below, (left, top) in left_over:  # what lies below is hidden where this one is
            offset = (patch.corner[0] - left, patch.corner[1] - top)
            if -patch.solid.width < offset[0] < below.width and -patch.solid.height < offset[1] < below.height:
                below.paste(0, offset, patch.solid)
        left_over.append((patch.solid.copy(), patch.corner))
    return left_over


def visible(patches: Sequence[Patch]) -> list[tuple[Box, int]]:
    """(box in pixels, area in pixels) of what can be seen of each. No area: a box of zeros."""
    return extents(shown(patches))


def extents(pieces: Sequence[tuple[Image.Image, tuple[int, int]]]) -> list[tuple[Box, int]]:
    """The same of what `shown` gave."""
    seen = []
    for solid, (left, top) in pieces:
        x0, y0, x1, y1 = solid.getbbox() or (0, 0, 0, 0)
        box = (float(left + x0), float(top + y0), float(left + x1), float(top + y1))
        seen.append((box, solid.histogram()[255]))
    return seen


def paint(image: Image.Image, patches: Sequence[Patch], tints: Sequence[Sequence[int]]) -> None:
    """Paint the patches into the scene in order, each with its colours shifted by its (R, G, B) tint."""
    for patch, tint in zip(patches, tints, strict=True):
        if isinstance(patch.ink, tuple):
            ink = tuple(min(max(value + shift, 0), 255) for value, shift in zip(patch.ink, tint, strict=True))
        else:
            ink = Image.fromarray((np.asarray(patch.ink).astype(np.int16) + tint).clip(0, 255).astype(np.uint8))
        left, top = patch.corner
        image.paste(ink, (left, top, left + patch.cover.width, top + patch.cover.height), patch.cover)
