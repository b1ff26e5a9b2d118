"""A contact sheet of a world: some of its scenes with boxes, names and captions, and every category, to look at."""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cloc.scenes.render import Scene, render_scene
from cloc.scenes.world import WorldSpec, get_category_set

_COLUMNS = 6
_TILE = 256
_GAP = 8
_TEXT = 12
_CAPTION_LINES = 4
_SHOWN = 64
_INK = {False: (0, 150, 0), True: (220, 0, 0)}


def draw_contact_sheet(spec: WorldSpec, count: int = 24, split: str = "val") -> Image.Image:
    """An RGB picture: the first scenes of a split with their boxes, then the cast.

    Boxes and names are green, those of caption-only categories red. Small scenes are enlarged with their pixels kept.

    Args:
        spec: the world.
        count: scenes shown.
        split: one of `world.SPLITS`.
    """
    font = ImageFont.load_default(_TEXT)
    tiles = [_draw_scene(render_scene(spec, index, split), font) for index in range(count)]
    tiles += _draw_categories(spec, font)
    rows = -(-len(tiles) // _COLUMNS)
    width, height = _TILE + _GAP, tiles[0].height + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (_GAP + i % _COLUMNS * width, _GAP + i // _COLUMNS * height))
    return sheet


def _draw_scene(scene: Scene, font: ImageFont.FreeTypeFont) -> Image.Image:
    tile = Image.new("RGB", (_TILE, _TILE + _CAPTION_LINES * (_TEXT + 3)), "white")
    factor = _TILE / scene.image.width
    tile.paste(scene.image.resize((_TILE, _TILE), Image.Resampling.NEAREST))
    pen = ImageDraw.Draw(tile)
    for thing in scene.objects:
        x0, y0, x1, y1 = (round(value * factor) for value in thing.box_xyxy)
        ink = _INK[thing.category.caption_only]
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=ink, width=2)
        # above the box, below it at the upper border; not beyond the left and right ones
        width = pen.textlength(thing.name, font)
        corner = (max(min(x0, _TILE - width - 2), 0), y0 - _TEXT - 3 if y0 >= _TEXT + 3 else min(y1, _TILE - _TEXT - 3))
        pen.rectangle((*corner, corner[0] + width + 2, corner[1] + _TEXT + 3), fill="white")
        pen.text((corner[0] + 1, corner[1]), thing.name, fill=ink, font=font)
    lines = textwrap.wrap(scene.caption, 42)[:_CAPTION_LINES]
    pen.multiline_text((0, _TILE + 1), "\n".join(lines), fill="black", font=font, spacing=2)
    return tile


def _draw_categories(spec: WorldSpec, font: ImageFont.FreeTypeFont) -> list[Image.Image]:
    """The names of the categories, on tiles of the scenes' size."""
    known = get_category_set(spec).categories
    lines = [(f"{c.id} {c.name}", _INK[c.caption_only]) for c in known[:_SHOWN]]
    if len(known) > _SHOWN:
        lines.append((f"and {len(known) - _SHOWN} more", (0, 0, 0)))
    height = _TILE + _CAPTION_LINES * (_TEXT + 3)
    fitting, tiles = height // (_TEXT + 3), []
    for first in range(0, len(lines), fitting):
        tile = Image.new("RGB", (_TILE, height), "white")
        pen = ImageDraw.Draw(tile)
        for row, (text, ink) in enumerate(lines[first : first + fitting]):
            pen.text((0, row * (_TEXT + 3)), text, fill=ink, font=font)
        tiles.append(tile)
    return tiles


def write_sheet(spec: WorldSpec, file: Path) -> None:
    """Write the contact sheet as a PNG.

    Raises:
        ValueError: the file's name does not end in .png.
    """
    if file.suffix.lower() != ".png":
        raise ValueError(f"--look: expected a file that ends in .png, got {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(spec).save(file)
