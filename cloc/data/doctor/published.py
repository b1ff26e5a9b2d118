"""What publications say of a set: how many images, regions or captions it holds. Each figure names its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CLOC = "CLOC (arXiv 2410.02746v2), Table 1"
_ALL_SPLITS = _CLOC + " (it names no split: evaluation images are probably among them)"
_DETCLIP = "DetCLIPv2 (arXiv 2304.04514), Table 1"
_REFER = "official annotation files of refer (expressions of the split)"
_COCO = "COCO's instances and captions files of 2017"


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        what: `samples`, `regions`, `captions`, `different images` or `regions an image`.
        value: as published.
        tolerance: share of `value` that rounding in print may explain; 0 for an exact count.
        source: where it stands.
    """

    what: str
    value: float
    tolerance: float
    source: str

    def agrees(self, found: float) -> bool:
        """Whether a count is the published one, within the rounding of the print."""
        return abs(found - self.value) <= self.tolerance * self.value


def _table1(images: float, regions: float, source: str = _CLOC) -> tuple[Published, ...]:
    return (
        Published("different images", images, 0.03, source),
        Published("regions an image", regions, 0.05, source),
    )


PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "coco-train2017": (Published("samples", 118_287, 0.0, _COCO),),
    "coco-val2017": (Published("samples", 5_000, 0.0, _COCO),),
    "lvis-minival": (Published("samples", 4_809, 0.0, "MDETR's lvis_v1_minival_inserted_image_name.json"),),
    "lvis-val": (Published("samples", 19_809, 0.0, "LVIS v1 val"),),
    "refcoco-train": _table1(20_000, 2.5, _ALL_SPLITS)[:1],
    "refcoco+-train": _table1(20_000, 2.5, _ALL_SPLITS)[:1],
    "refcocog-train": _table1(27_000, 2.1, _ALL_SPLITS)[:1],
    "refcoco-val": (Published("regions", 10_834, 0.0, _REFER),),
    "refcoco-testA": (Published("regions", 5_657, 0.0, _REFER),),
    "refcoco-testB": (Published("regions", 5_095, 0.0, _REFER),),
    "refcocog-val": (Published("regions", 4_896, 0.0, _REFER),),
    "flickr30k_entities": _table1(32_000, 8.7)[:1],  # Table 1 counts boxes, a set of ours phrases
    "visual_genome": _table1(108_000, 38.0),
    "grit": _table1(17_000_000, 1.8),
    "objects365": (Published("different images", 660_000, 0.02, _DETCLIP + " (the subset it trains on)"),),
    "goldg": (Published("different images", 770_000, 0.02, _DETCLIP + " (GoldG without COCO images)"),),
    "pairs": (),
}
"""By the name of a set. Where a name is not here there is nothing to compare with, and the check says so."""


def published_for(card: Mapping[str, Any] | None, name: str | None = None) -> tuple[str, tuple[Published, ...]]:
    """(the name under which figures were looked up, the figures: none where nothing is published under that name).

    Args:
        card: the set's card; its `name` is looked up, then the format that its converter was called with.
        name: look this one up instead.

    Raises:
        ValueError: `name` is not known.
    """
    if name is not None:
        if name not in PUBLISHED:
            raise ValueError(f"--as: expected one of {', '.join(sorted(PUBLISHED))}, got {name!r}")
        return name, PUBLISHED[name]
    told = str((card or {}).get("name", ""))
    made = str((card or {}).get("made", {}).get("by", "")).rpartition(" ")[2]
    return next(((key, PUBLISHED[key]) for key in (told, made) if key in PUBLISHED), (told or "this set", ()))
