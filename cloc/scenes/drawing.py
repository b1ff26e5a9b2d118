"""Pixels of a scene: the patch of each object, what of it can be seen, painting it; and what lies behind.

Backgrounds are muted, soft or with a texture, so that no shape's colour occurs in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

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

    coverage: Image.Image
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
        coverage, ink = _fill_outline(thing, size, (left, top), (width, height)), sprite.colour
    else:
        drawn = _turn_picture(sprite, thing, size, (left, top), (width, height))
        coverage, ink = drawn.getchannel("A"), drawn.convert("RGB")
    solid = coverage.convert("1", dither=Image.Dither.NONE)
    return Patch(coverage, solid, (left, top), ink, solid.histogram()[255])


def _fill_outline(thing: Placed, size: int, corner: tuple[int, int], extent: tuple[int, int]) -> Image.Image:
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
def _reduce_picture(sprite: Sprite, factor: int) -> Image.Image:
    """A picture made smaller by a whole factor, so that the turning has little left to shrink (it would alias)."""
    return sprite.picture.reduce(factor) if factor > 1 else sprite.picture


def _turn_picture(
    sprite: Sprite, thing: Placed, size: int, corner: tuple[int, int], extent: tuple[int, int]
) -> Image.Image:
    """The RGBA patch of a picture."""
    pixels = math.sqrt(abs(np.linalg.det(thing.turn))) * size  # of the scene for one of the picture
    factor = max(1, math.floor(1 / pixels))
    # PIL asks where in the picture a pixel of the patch comes from: the inverse of `point @ turn + shift`
    back = np.linalg.inv(thing.turn) / size
    start = (np.array(corner) - thing.shift * size) @ back
    (a, d), (b, e) = (back / factor).tolist()
    c, f = (start / factor).tolist()
    picture = _reduce_picture(sprite, factor)
    return picture.transform(extent, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


def find_visible_pixels(patches: Sequence[Patch]) -> list[tuple[Image.Image, tuple[int, int]]]:
    """(pixels, mode 1; their left and top in the scene) of what can be seen of each; later ones lie above."""
    left_over: list[tuple[Image.Image, tuple[int, int]]] = []
    for patch in patches:
        for below, (left, top) in left_over:  # what lies below is hidden where this one is
            offset = (patch.corner[0] - left, patch.corner[1] - top)
            if -patch.solid.width < offset[0] < below.width and -patch.solid.height < offset[1] < below.height:
                below.paste(0, offset, patch.solid)
        left_over.append((patch.solid.copy(), patch.corner))
    return left_over


def measure_extents(pieces: Sequence[tuple[Image.Image, tuple[int, int]]]) -> list[tuple[Box, int]]:
    """(box in pixels, area in pixels) of what `find_visible_pixels` gave. No area: a box of zeros."""
    found = []
    for solid, (left, top) in pieces:
        x0, y0, x1, y1 = solid.getbbox() or (0, 0, 0, 0)
        box = (float(left + x0), float(top + y0), float(left + x1), float(top + y1))
        found.append((box, solid.histogram()[255]))
    return found


def paint(image: Image.Image, patches: Sequence[Patch], tints: Sequence[Sequence[int]]) -> None:
    """Paint the patches into the scene in order, each with its colours shifted by its (R, G, B) tint."""
    for patch, tint in zip(patches, tints, strict=True):
        if isinstance(patch.ink, tuple):
            ink = tuple(min(max(value + shift, 0), 255) for value, shift in zip(patch.ink, tint, strict=True))
        else:
            ink = Image.fromarray((np.asarray(patch.ink).astype(np.int16) + tint).clip(0, 255).astype(np.uint8))
        left, top = patch.corner
        image.paste(ink, (left, top, left + patch.coverage.width, top + patch.coverage.height), patch.coverage)


_PATTERNS = 24
_CONTRAST = 45


def draw_background(kind: str, size: int, rng: np.random.Generator) -> Image.Image:
    """An RGB image of size x size pixels.

    Args:
        kind: `plain` or `textured`.
        size: side in pixels.
        rng: of the scene.
    """
    cells = int(rng.integers(2, 7))
    base = rng.integers(70, 186)
    light = base + rng.integers(-35, 36, (cells, cells, 1))
    clouds = (light + rng.integers(-14, 15, (cells, cells, 3))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(clouds).resize((size, size), Image.Resampling.BILINEAR)
    if kind == "textured":
        image = _add_texture(image, size, rng)
    left, top = rng.integers(0, size, 2).tolist()
    grain = _make_grain(size).crop((left, top, left + size, top + size))
    return ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), scale=1, offset=-128)


@lru_cache(maxsize=4)
def _make_grain(size: int) -> Image.Image:
    """A fixed patch of fine noise around 128; every scene takes it from another corner."""
    noise = np.random.default_rng(size).normal(128.0, 8.0, (2 * size, 2 * size))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def _add_texture(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """The clouds, lighter or darker where a pattern says so; the pattern is taken from another corner every time."""
    pattern = _make_patterns(size)[int(rng.integers(_PATTERNS))]
    left, top = rng.integers(0, size, 2).tolist()
    mask = pattern.crop((left, top, left + size, top + size))
    shift = int(rng.integers(12, _CONTRAST + 1)) * (1 if rng.random() < 0.5 else -1)
    other = image.point([min(max(value + shift, 0), 255) for value in range(256)] * 3)
    return Image.composite(other, image, mask)


@lru_cache(maxsize=4)
def _make_patterns(size: int) -> tuple[Image.Image, ...]:
    """Fixed patterns of twice the side, 0 to 255: stripes, checks, dots, weaves, blotches; each turned and scaled."""
    rng = np.random.default_rng(_PATTERNS)
    rows, columns = np.mgrid[0 : 2 * size, 0 : 2 * size] / size
    made = []
    for number in range(_PATTERNS):
        angle, waves = rng.uniform(0, np.pi), rng.uniform(3.0, 14.0) * 2 * np.pi
        along = np.sin(waves * (columns * np.cos(angle) + rows * np.sin(angle)))
        across = np.sin(waves * (rows * np.cos(angle) - columns * np.sin(angle)))
        cells = rng.normal(size=(int(rng.integers(8, 25)),) * 2)
        blotches = Image.fromarray(cells.astype(np.float32)).resize((2 * size, 2 * size), Image.Resampling.BICUBIC)
        value = (along, along * across, np.maximum(along, across), along + across - 1, np.asarray(blotches))[number % 5]
        # steep but not hard edges
        made.append(Image.fromarray((255 / (1 + np.exp(-6 * value))).astype(np.uint8)))
    return tuple(made)
