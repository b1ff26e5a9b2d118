"""What scenes are composed of: sprites. A sprite is an outline and a colour, or a picture and its convex hull.

Coordinates of outlines: x to the right, y down, any unit; the layout scales them. Pictures are the colour glyphs of an
emoji font, each of a single code point, named as Unicode names it. The font is Debian's `fonts-noto-color-emoji`; its
glyphs are bitmaps of one size (136 x 128 pixels at size 109).
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import ConvexHull

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


def _make_ellipse(radius_x: float, radius_y: float, corners: int = 40) -> Outline:
    turn = np.linspace(0.0, 2.0 * math.pi, corners, endpoint=False)
    return np.stack([radius_x * np.cos(turn), radius_y * np.sin(turn)], axis=1)


def _make_cross(arm: float = 0.30) -> Outline:
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


def _make_shapes() -> dict[str, tuple[Outline, Outline | None]]:
    """Few and unlike each other: full, half, arms, hollow. They can be told apart at seven pixels."""
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)
    return {
        "square": (square, None),
        "triangle": (np.array([(0.0, -1.0), (1.0, 0.9), (-1.0, 0.9)]), None),
        "cross": (_make_cross(), None),
        "ring": (_make_ellipse(1.0, 1.0), _make_ellipse(0.58, 0.58)),
    }


@lru_cache(maxsize=1)
def make_coloured_shapes() -> tuple[Sprite, ...]:
    """Each shape in each colour, colour by colour."""
    return tuple(
        Sprite(f"{colour} {shape}", f"a {shape} that is {colour}", shape, rgb, outline, hole)
        for colour, rgb in COLOURS.items()
        for shape, (outline, hole) in _make_shapes().items()
    )


PACKAGE = "fonts-noto-color-emoji"
FONT_FILES = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),  # Debian, Ubuntu
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),  # Arch
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),  # Fedora
)
_BITMAP_SIZE = 109
_GLYPH = (136, 128)
_BLOCKS = (range(0x2300, 0x2C00), range(0x1F000, 0x1FB00))
# letters and digits in boxes, skin tones: parts of other pictures, or writing
_NO_PICTURES = re.compile(
    r"\b(squared|circled|latin|regional|modifier|ideograph|digit|input symbol|clock face)\b|\d", re.IGNORECASE
)
_THUMBNAIL = 12
_SHORT_NAME = 2


def find_font() -> Path | None:
    """Where the emoji font lies, None where it is not installed."""
    return next((path for path in FONT_FILES if path.is_file()), None)


@lru_cache(maxsize=1)
def hash_font() -> str:
    """The start of the font file's sha256: another version of the font draws other pictures."""
    with _require_font().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _require_font() -> Path:
    path = find_font()
    if path is None:
        raise ValueError(
            f"sprites: expected an emoji font at {FONT_FILES[0]} or where other distributions put it, found none; "
            f"install the package {PACKAGE} (`apt-get install {PACKAGE}`), or use sprites=shapes"
        )
    return path


@lru_cache(maxsize=1)
def _load_font() -> ImageFont.FreeTypeFont:
    # the basic layout draws single code points, and no shaping library needs to be there
    return ImageFont.truetype(str(_require_font()), _BITMAP_SIZE, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def list_emoji_points() -> tuple[int, ...]:
    """The code points that are pictures, in order.

    Raises:
        ValueError: the font is missing; the message names its package.
    """
    font, points = _load_font(), []
    for point in (point for block in _BLOCKS for point in block):
        name = unicodedata.name(chr(point), "")
        # a code point without a bitmap has a flat box
        if name and not _NO_PICTURES.search(name) and font.getbbox(chr(point)) == (0, 0, *_GLYPH):
            points.append(point)
    return tuple(points)


@lru_cache(maxsize=2048)
def draw_glyph(point: int) -> Image.Image:
    """The RGBA bitmap of a code point."""
    image = Image.new("RGBA", _GLYPH)
    ImageDraw.Draw(image).text((0, 0), chr(point), font=_load_font(), embedded_color=True)
    return image


def spoken_name(point: int) -> str:
    """Unicode's name of a code point in lower-case."""
    return unicodedata.name(chr(point)).lower()


def make_emoji_sprite(point: int) -> Sprite:
    """The sprite of a code point; its outline is the convex hull of the pixels that are at least half covered."""
    name, picture = spoken_name(point), draw_glyph(point)
    solid = np.asarray(picture.getchannel("A")) >= 128
    rows = np.flatnonzero(solid.any(axis=1))
    first, last = solid[rows].argmax(axis=1), solid.shape[1] - solid[rows, ::-1].argmax(axis=1)
    # the outermost corners of each row of pixels are all that a hull can need
    corners = np.concatenate([np.stack([x, rows + y], axis=1) for x in (first, last) for y in (0, 1)])
    hull = corners[ConvexHull(corners).vertices].astype(np.float64)
    return Sprite(name, f"the emoji that is called {name}", "emoji", (128, 128, 128), hull, picture=picture)


@lru_cache(maxsize=8)
def choose_emoji(count: int | None = None) -> tuple[Sprite, ...]:
    """All pictures, or `count` of them that look unlike each other and have short names, in the order of code points.

    Among the pictures whose names have at most two words the first is taken, then always the one that is farthest from
    all taken ones, by the pixels of thumbnails on grey. So few categories can be told apart in small scenes.

    Raises:
        ValueError: the font is missing, or has fewer such pictures.
    """
    points = list_emoji_points()
    if count is None:
        return tuple(make_emoji_sprite(point) for point in points)
    short = tuple(point for point in points if len(spoken_name(point).split()) <= _SHORT_NAME)
    if count > len(short):
        raise ValueError(
            f"num_categories: expected at most {len(short)} (the emoji with short names), or none for all "
            f"{len(points)}, got {count}"
        )
    return tuple(make_emoji_sprite(point) for point in sorted(short[i] for i in _choose_unlike(short, count)))


def _choose_unlike(points: tuple[int, ...], count: int) -> list[int]:
    """Places of `count` pictures, by farthest-point sampling."""
    pictures = []
    for point in points:
        plain = Image.new("RGBA", _GLYPH, (128, 128, 128, 255))
        plain.alpha_composite(draw_glyph(point))
        small = plain.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
        pictures.append(np.asarray(small, dtype=np.float64).ravel())
    thumbnails, chosen = np.stack(pictures), [0]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(thumbnails - thumbnails[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return chosen[:count]
