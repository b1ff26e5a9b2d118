"""Drawing one scene: background, objects, and the exact boxes of what can be seen of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from cloc.data.scenes.captions import caption_of
from cloc.data.scenes.expressions import SceneExpression, expressions_of
from cloc.data.scenes.layout import Placed, lay_out
from cloc.data.scenes.sprites import sprite_set
from cloc.data.scenes.world import SceneCategory, WorldSpec, categories, scene_rng
from cloc.structures import Box

_OVERSAMPLING = 4
_TINT = 22


@dataclass(frozen=True)
class SceneObject:
    """One object as it can be seen.

    Attributes:
        box_xyxy: pixels, tight around the visible pixels (those at least half covered).
        area: visible pixels.
        category: what it is.
    """

    box_xyxy: Box
    area: int
    category: SceneCategory

    @property
    def category_id(self) -> int:
        """Id of its category, from 1."""
        return self.category.id

    @property
    def name(self) -> str:
        """Name of its category."""
        return self.category.name


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        split, index: which one.
        image: RGB, square.
        objects: in drawing order, the largest first.
        caption: names at most half of the objects (rounded up).
        expressions: all true ones, in an order drawn by chance.
    """

    split: str
    index: int
    image: Image.Image
    objects: tuple[SceneObject, ...]
    caption: str
    expressions: tuple[SceneExpression, ...]


def render_scene(spec: WorldSpec, index: int, split: str, size: int | None = None) -> Scene:
    """Render one scene: a pure function of its arguments.

    Args:
        spec: the world; how many scenes it writes does not matter here.
        index: number of the scene in its split, from 0.
        split: `train`, `val` or `refcoco`.
        size: side in pixels, `spec.size` by default.

    Raises:
        ValueError: the split is unknown, or the spec's objects do not fit.
    """
    size = spec.size if size is None else size
    rng = scene_rng(spec, split, index)
    placed = lay_out(spec, rng)
    image = _background(size, rng)
    visible = _draw(image, placed, spec.sprites, rng)
    known = categories(spec.sprites, spec.caption_only)
    objects = tuple(
        SceneObject(box, area, known[thing.sprite]) for thing, (box, area) in zip(placed, visible, strict=True)
    )
    names = [thing.name for thing in objects]
    caption = caption_of(names, rng)
    anchors = [not thing.category.caption_only for thing in objects]
    found = expressions_of(names, [thing.box_xyxy for thing in objects], size, anchors)
    expressions = tuple(found[place] for place in rng.permutation(len(found)).tolist())
    return Scene(split, index, image, objects, caption, expressions)


@lru_cache(maxsize=4)
def _grain(size: int) -> Image.Image:
    """A fixed patch of fine noise around 128; every scene takes it from another corner."""
    noise = np.random.default_rng(size).normal(128.0, 8.0, (2 * size, 2 * size))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def _background(size: int, rng: np.random.Generator) -> Image.Image:
    """Soft clouds of muted colours with fine grain, so that no sprite's colour occurs in it."""
    cells = int(rng.integers(2, 7))
    base = rng.integers(70, 186)
    light = base + rng.integers(-35, 36, (cells, cells, 1))
    clouds = (light + rng.integers(-14, 15, (cells, cells, 3))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(clouds).resize((size, size), Image.Resampling.BILINEAR)
    left, top = rng.integers(0, size, 2).tolist()
    grain = _grain(size).crop((left, top, left + size, top + size))
    return ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), scale=1, offset=-128)


def _draw(
    image: Image.Image, placed: tuple[Placed, ...], sprites: str, rng: np.random.Generator
) -> list[tuple[Box, int]]:
    """Draw the objects in order; returns the visible (box in pixels, area in pixels) of each."""
    tints = rng.integers(-_TINT, _TINT + 1, (len(placed), 3)).tolist()
    drawn: list[tuple[Image.Image, tuple[int, int]]] = []
    for thing, tint in zip(placed, tints, strict=True):
        mask, corner = _mask(thing, image.width)
        colour = sprite_set(sprites)[thing.sprite].colour
        tinted = tuple(min(max(value + shift, 0), 255) for value, shift in zip(colour, tint, strict=True))
        image.paste(tinted, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)
        solid = mask.convert("1", dither=Image.Dither.NONE)  # at least half covered
        for below, (left, top) in drawn:  # what lies below is hidden where this one is
            offset = (corner[0] - left, corner[1] - top)
            if -mask.width < offset[0] < below.width and -mask.height < offset[1] < below.height:
                below.paste(0, offset, solid)
        drawn.append((solid, corner))
    seen = []
    for solid, (left, top) in drawn:
        x0, y0, x1, y1 = solid.getbbox()
        box = (float(left + x0), float(top + y0), float(left + x1), float(top + y1))
        seen.append((box, solid.histogram()[255]))
    return seen


def _mask(thing: Placed, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """How far each pixel of an object's patch is covered (0 to 255), and the patch's corner in the image."""
    x0, y0, x1, y1 = (value * size for value in thing.box_xyxy)
    left, top = math.floor(x0), math.floor(y0)
    width, height = min(math.ceil(x1), size) - left, min(math.ceil(y1), size) - top
    large = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    pen = ImageDraw.Draw(large)
    for border, ink in ((thing.outline, 255), (thing.hole, 0)):
        if border is not None:
            # a pixel of the large mask is centred half a pixel in
            corners = (border * size - (left, top)) * _OVERSAMPLING - 0.5
            pen.polygon(corners.ravel().tolist(), fill=ink)
    return large.reduce(_OVERSAMPLING), (left, top)
