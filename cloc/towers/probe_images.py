"""The pictures on which a swap proves itself: several aspect ratios, the same on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

SIZES = {"1:1": (96, 96), "2:1": (160, 80), "1:3": (70, 210), "tiny": (7, 5), "large": (1600, 1200)}
"""(width, height) in pixels. The ratios other than 1:1 tell a crop from a padding."""


@lru_cache(maxsize=1)
def pictures() -> dict[str, Image.Image]:
    """One RGB picture for each entry of `SIZES`: a colour ramp under noise, so that every row and column differs."""
    made = {}
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        noise = np.random.default_rng(seed).integers(0, 96, size=(height, width, 3))
        across = np.linspace(0, 159, width)[None, :, None]
        down = np.linspace(159, 0, height)[:, None, None]
        ramp = np.concatenate([across + 0 * down, 0 * across + down, (across + down) / 2], axis=2)
        made[name] = Image.fromarray((noise + ramp).astype(np.uint8), mode="RGB")
    return made
