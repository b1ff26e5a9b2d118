"""Drawing one scene: background, objects, and the exact boxes of what can be seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from cloc.scenes.captions import SceneExpression, find_expressions, write_caption
from cloc.scenes.categories import SceneCategory
from cloc.scenes.drawing import cut_out, draw_background, find_visible_pixels, measure_extents, paint
from cloc.scenes.layout import lay_out
from cloc.scenes.world import WorldSpec, get_category_set, make_scene_rng
from cloc.structures import Box

_TRIES = 50
_SEEN = 0.25


@dataclass(frozen=True)
class SceneObject:
    """One object as it can be seen.

    Attributes:
        box_xyxy: pixels, tight around the visible pixels (those at least half covered).
        area: visible pixels.
        category: what it is.
        pixels: mode 1, those that can be seen.
        corner: left and top of `pixels` in the scene.
    """

    box_xyxy: Box
    area: int
    category: SceneCategory
    pixels: Image.Image = field(compare=False, repr=False)
    corner: tuple[int, int]

    @property
    def category_id(self) -> int:
        """Id of its category, from 1."""
        return self.category.id

    @property
    def name(self) -> str:
        """Name of its category."""
        return self.category.name

    def mask(self, size: int) -> np.ndarray:
        """(size, size) bool: the pixels of the scene that show it."""
        whole = Image.new("1", (size, size))
        whole.paste(self.pixels, self.corner)
        return np.asarray(whole)


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
        split: one of `world.SPLITS`.
        size: side in pixels, `spec.size` by default.

    Raises:
        ValueError: the split is unknown, or the spec's objects do not fit.
    """
    size = spec.size if size is None else size
    rng, known = make_scene_rng(spec, split, index), get_category_set(spec)
    for _ in range(_TRIES):
        placed = lay_out(spec, split, rng)
        patches = [cut_out(known.sprites[thing.sprite], thing, size) for thing in placed]
        pieces = find_visible_pixels(patches)
        boxes_and_areas = measure_extents(pieces)
        if all(area >= max(1, _SEEN * patch.area) for (_, area), patch in zip(boxes_and_areas, patches, strict=True)):
            break  # only worlds with much overlap or pictures of a few pixels draw a layout again
    else:
        raise ValueError(f"scenes: {_TRIES} layouts hid an object; lower max_covered or max_objects, or raise min_side")
    image = draw_background(spec.background, size, rng)
    paint(image, patches, rng.integers(-spec.tint, spec.tint + 1, (len(placed), 3)).tolist())
    objects = tuple(
        SceneObject(box, area, known.categories[thing.sprite], *piece)
        for thing, (box, area), piece in zip(placed, boxes_and_areas, pieces, strict=True)
    )
    names = [thing.name for thing in objects]
    caption = write_caption(names, rng, spec.background)
    anchors = [not thing.category.caption_only for thing in objects]
    found = find_expressions(names, [thing.box_xyxy for thing in objects], size, anchors)
    expressions = tuple(found[i] for i in rng.permutation(len(found)).tolist())
    return Scene(split, index, image, objects, caption, expressions)
