"""What publications say of a set: how many images, regions or captions it holds. Each figure names its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CLOC = "CLOC (arXiv 2410.02746v2), Table 1"
_DETCLIP = "DetCLIPv2 (arXiv 2304.04514), Table 1"
_REFER = "official annotation files of refer (expressions of the split)"
_COCO = "COCO's instances and captions files of 2017"


A_PART = 0.9
"""A set with less than this share of a published figure is a part, made on purpose; with more, something was lost."""


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        what: `samples`, `regions`, `captions`, `different images` or `regions an image`.
        value: as published.
        tolerance: share of `value` that rounding in print may explain; 0 for an exact count.
        source: where it stands.
        all_splits: the figure counts train, val and test together, and a set under this name is one of them: it may
            hold less, never more.
    """

    what: str
    value: float
    tolerance: float
    source: str
    all_splits: bool = False

    def agrees(self, found: float) -> bool:
        """Whether a count is the published one, within the rounding of the print."""
        return abs(found - self.value) <= self.tolerance * self.value

    def line(self, found: float) -> str:
        """The figure beside a count, and what that says, as a line for the console."""
        beside = f"{self.what} {self.value:,g}{' in all splits together' * self.all_splits}, here {found:,.10g}"
        if self.agrees(found):
            verdict = "agrees"
        elif self.all_splits and found < self.value:
            verdict = "not compared, for this is one split"
        elif found < A_PART * self.value:
            verdict = f"not compared, for this is a part of it ({found / self.value:.2%})"
        else:
            verdict = f"DIFFERS by {found - self.value:+,.6g}"
        return f"published: {beside}: {verdict} [{self.source}]"


def _table1(images: float, regions: float) -> tuple[Published, ...]:
    return (
        Published("different images", images, 0.03, _CLOC),
        Published("regions an image", regions, 0.05, _CLOC),
    )


def _table1_split(images: float) -> tuple[Published, ...]:
    """Table 1 names no split; its counts of images are those of whole sets, evaluation images among them."""
    return (Published("different images", images, 0.03, _CLOC, all_splits=True),)


PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "coco-train2017": (Published("samples", 118_287, 0.0, _COCO),),
    "coco-val2017": (Published("samples", 5_000, 0.0, _COCO),),
    "lvis-minival": (Published("samples", 4_809, 0.0, "MDETR's lvis_v1_minival_inserted_image_name.json"),),
    "lvis-val": (Published("samples", 19_809, 0.0, "LVIS v1 val"),),
    "refcoco-train": _table1_split(20_000),
    "refcoco+-train": _table1_split(20_000),
    "refcocog-train": _table1_split(27_000),
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

_FILES = {
    "instances_train2017.json": "coco-train2017",
    "instances_val2017.json": "coco-val2017",
    "lvis_v1_minival_inserted_image_name.json": "lvis-minival",
    "lvis_v1_val.json": "lvis-val",
}
"""The split by its annotation file: converters of COCO and LVIS call a set `coco` and `lvis` unless told otherwise."""


def find_published(card: Mapping[str, Any] | None, name: str | None = None) -> tuple[str, tuple[Published, ...]]:
    """(the name under which figures were looked up, the figures: none where nothing is published under that name).

    Args:
        card: the set's card; its `name` is looked up, then the annotation file that it was made from, then the format
            that its converter was called with. A set that was cut short with `--limit` is compared with nothing.
        name: look this one up instead.

    Raises:
        ValueError: `name` is not known.
    """
    if name is not None:
        if name not in PUBLISHED:
            raise ValueError(f"--as: expected one of {', '.join(sorted(PUBLISHED))}, got {name!r}")
        return name, PUBLISHED[name]
    set_name, made = str((card or {}).get("name", "")), (card or {}).get("made", {})
    if "limit" in made:
        return f"the first {made['limit']} images of {set_name}", ()
    inputs = (made.get(field) for field in ("instances", "annotations"))
    splits = (_FILES.get(str(one.get("file"))) for one in inputs if isinstance(one, Mapping))
    converter = str(made.get("by", "")).rpartition(" ")[2]
    key = next((key for key in (set_name, *splits, converter) if key in PUBLISHED), None)
    return (set_name or "this set", ()) if key is None else (key, PUBLISHED[key])
