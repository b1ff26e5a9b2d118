"""The categories of a world as cards and LVIS files list them: with counts, and rare, common or frequent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloc.scenes.training import Tally
from cloc.scenes.world import WorldSpec, categories

LVIS_SHARES = (337 / 1203, 461 / 1203)
"""How many of LVIS v1's categories are rare and common, as shares."""


def frequency(image_count: int) -> str:
    """LVIS's classes: `r` for up to 10 training images with the category, `c` for up to 100, else `f`."""
    return "r" if image_count <= 10 else "c" if image_count <= 100 else "f"


def frequencies(spec: WorldSpec, images: Mapping[int, int]) -> dict[int, str]:
    """The class of each category by id.

    With `frequency_rule=lvis` LVIS's own thresholds. With `shares` the boxed categories are ranked by their training
    images, and the first 28 % are rare, the next 38 % common, as in LVIS v1: a world of a few thousand images has few
    categories with at most 10. A caption-only category has no training image with a box: it is rare in both.
    """
    known = categories(spec)
    if spec.frequency_rule == "lvis":
        return {category.id: frequency(images.get(category.id, 0)) for category in known}
    boxed = sorted((images.get(c.id, 0), c.id) for c in known if not c.caption_only)
    rare = round(LVIS_SHARES[0] * len(boxed))
    common = rare + round(LVIS_SHARES[1] * len(boxed))
    classes = "r" * rare + "c" * (common - rare) + "f" * (len(boxed) - common)
    ranked = {number: letter for letter, (_, number) in zip(classes, boxed, strict=True)}
    return {c.id: ranked.get(c.id, "r") for c in known}


def listing(spec: WorldSpec, images: Mapping[int, int], instances: Mapping[int, int]) -> list[dict[str, Any]]:
    """All categories, in the order of their ids.

    Args:
        spec: the world.
        images: training images with a box of the category, by id.
        instances: boxes, by id.
    """
    classes = frequencies(spec, images)
    return [
        {
            "id": c.id,
            "name": c.name,
            "definition": c.definition,
            "frequency": classes[c.id],
            "image_count": images.get(c.id, 0),
            "instance_count": instances.get(c.id, 0),
            "caption_only": c.caption_only,
        }
        for c in categories(spec)
    ]


def listing_of_card(spec: WorldSpec, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All categories with the counts that a folder's card lists; those that it does not list have none."""
    images = {entry["id"]: entry["image_count"] for entry in card["categories"]}
    instances = {entry["id"]: entry["instance_count"] for entry in card["categories"]}
    return listing(spec, images, instances)


def regions_card(spec: WorldSpec, tally: Tally) -> dict[str, Any]:
    """What the card of `train` says beyond the usual."""
    return {"relational_regions": tally.relational, "categories": listing(spec, tally.images, tally.instances)}


def detection_card(spec: WorldSpec, tally: Tally) -> dict[str, Any]:
    """What the card of `detection` says: the categories that have boxes, and no other.

    A caption-only category in this list would be drawn as a negative, and be taught to be absent where it is not.
    """
    listed = listing(spec, tally.images, tally.instances)
    return {"categories": [entry for entry in listed if not entry["caption_only"]]}


def plain_card(spec: WorldSpec, tally: Tally) -> dict[str, Any]:
    """What the cards of `grounding` and `pairs` say beyond the usual: nothing, they have phrases and no categories."""
    return {}
