"""Worlds with a name: what `--preset` means."""

from __future__ import annotations

from cloc.scenes.emoji import font_file
from cloc.scenes.world import WorldSpec

PRESETS = ("quickstart", "detection")


def preset(name: str) -> WorldSpec:
    """The world of a preset.

    `quickstart`: coloured shapes at 96 pixels, the world of the bare commands. `detection`: 24 categories with boxes
    and 8 that only captions name, by words that occur in no other name; emoji where the font is installed, else
    coloured shapes with made-up names; 128 pixels, 1 to 5 objects from 16 pixels up, a folder for each data type.

    Raises:
        ValueError: there is no such preset.
    """
    if name == "quickstart":
        return WorldSpec()
    if name != "detection":
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    emoji = font_file() is not None
    return WorldSpec(
        size=128,
        sprites="emoji" if emoji else "shapes",
        names="descriptive" if emoji else "coined",
        num_categories=32,
        caption_only=8,
        caption_only_words="disjoint",
        min_objects=1,
        max_objects=5,
        min_side=16 / 128,
        train=6_000,
        detection=6_000,
        grounding=3_000,
        pairs=6_000,
        val=500,
        refcoco=500,
    )
