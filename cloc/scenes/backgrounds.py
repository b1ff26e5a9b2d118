"""What lies behind the objects: muted colours, so that no shape's colour occurs in it, soft or with a texture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

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
        image = _textured(image, size, rng)
    left, top = rng.integers(0, size, 2).tolist()
    grain = _grain(size).crop((left, top, left + size, top + size))
    return ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), scale=1, offset=-128)


@lru_cache(maxsize=4)
def _grain(size: int) -> Image.Image:
    """A fixed patch of fine noise around 128; every scene takes it from another corner."""
    noise = np.random.default_rng(size).normal(128.0, 8.0, (2 * size, 2 * size))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def _textured(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """The clouds, lighter or darker where a pattern says so; the pattern is taken from another corner every time."""
    pattern = _patterns(size)[int(rng.integers(_PATTERNS))]
    left, top = rng.integers(0, size, 2).tolist()
    mask = pattern.crop((left, top, left + size, top + size))
    shift = int(rng.integers(12, _CONTRAST + 1)) * (1 if rng.random() < 0.5 else -1)
    other = image.point([min(max(value + shift, 0), 255) for value in range(256)] * 3)
    return Image.composite(other, image, mask)


@lru_cache(maxsize=4)
def _patterns(size: int) -> tuple[Image.Image, ...]:
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
