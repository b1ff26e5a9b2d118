"""A region and a sample as they lie on disk, in xyxy pixels of the original image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cloc.boxes import cut_at_border
from cloc.files import is_text
from cloc.text import canonical


class DataError(ValueError):
    """One sample or region that cannot be used. `reason` is the short name under which it is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Box = tuple[float, float, float, float]


def _is_number(value: object) -> bool:
    """A number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Region:
    """A box and its phrase.

    Attributes:
        box: xyxy, pixels of the original image; finite, with a positive width and height.
        phrase: the text of the region, not empty.
        score: confidence in [0, 1] where a model made the box, else None.
        extras: the other fields of the shard format (`category_id`, `mask`, `crowd`, `span`), kept as they came.
    """

    box: Box
    phrase: str
    score: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.box) != 4 or not all(map(_is_number, self.box)):
            raise DataError("bad_box", f"box: expected four numbers [x0, y0, x1, y1] in pixels, got {self.box!r}")
        if not all(abs(v) < math.inf for v in self.box):  # isfinite refuses huge integers with an error of its own
            raise DataError("nan_box", f"box: expected finite numbers, got {self.box!r}")
        x0, y0, x1, y1 = self.box
        if x1 <= x0 or y1 <= y0:
            raise DataError("empty_box", f"box: expected x1 > x0 and y1 > y0 (xyxy pixels), got {self.box!r}")
        if not is_text(self.phrase) or not canonical(self.phrase):
            raise DataError("empty_phrase", f"phrase: expected a text, got {self.phrase!r}")
        if self.score is not None and not (_is_number(self.score) and math.isfinite(self.score)):
            raise DataError("bad_score", f"score: expected a number or none, got {self.score!r}")

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Region:
        """Read one entry of `regions` of a shard's KEY.json.

        Raises:
            DataError: the entry has no usable box or phrase, or `crowd` is no truth value or `category_id` no whole
                number.
        """
        if not isinstance(entry, Mapping) or "box" not in entry or "phrase" not in entry:
            raise DataError("bad_region", f"region: expected an object with 'box' and 'phrase', got {entry!r}")
        extras = {k: v for k, v in entry.items() if k not in ("box", "phrase", "score")}
        if extras.get("crowd") not in (None, False, True) or isinstance(extras.get("crowd"), float):
            raise DataError("bad_crowd", f"crowd: expected true or false, got {extras['crowd']!r}")
        if extras.get("category_id") is not None and not _is_whole(extras["category_id"]):
            raise DataError("bad_category_id", f"category_id: expected a whole number, got {extras['category_id']!r}")
        box = entry["box"]
        box = tuple(box) if isinstance(box, (list, tuple)) else (math.nan,)
        return cls(box=box, phrase=entry["phrase"], score=entry.get("score"), extras=extras)

    def to_json(self) -> dict[str, Any]:
        """The entry of `regions` in a shard's KEY.json."""
        score = {} if self.score is None else {"score": self.score}
        return {"box": list(self.box), "phrase": self.phrase, **score, **self.extras}

    def inside(self, width: int, height: int) -> Region:
        """The region cut at the border of its image.

        Raises:
            DataError: no part of the box lies inside.
        """
        cut = cut_at_border(self.box, width, height)
        if cut is None:
            raise DataError("box_outside", f"box {self.box!r} lies outside its image of {width} x {height} pixels")
        return self if cut == self.box else replace(self, box=cut)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its caption and regions, as it lies in a shard.

    Attributes:
        key: name inside the shard, without a dot.
        image: the encoded image, never re-encoded.
        image_format: file ending of `image`: jpg, png or webp.
        width, height: pixels.
        caption: text of the whole image; empty where there is none.
        regions: usable regions, cut at the image's border.
        extras: the other fields of KEY.json, kept as they came.
        dropped: regions left out or cut, counted by reason.
    """

    key: str
    image: bytes
    image_format: str
    width: int
    height: int
    caption: str
    regions: tuple[Region, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if "." in self.key or not self.key:
            raise DataError(
                "bad_key", f"key: expected a name without a dot (WebDataset splits there), got {self.key!r}"
            )
        if self.image_format not in ("jpg", "png", "webp"):
            raise DataError("bad_image_format", f"image format: expected jpg, png or webp, got {self.image_format!r}")
        if not (_is_whole(self.width) and _is_whole(self.height)) or min(self.width, self.height) < 1:
            raise DataError(
                "bad_size", f"{self.key}: expected width and height in pixels, got {self.width}x{self.height}"
            )

    @classmethod
    def from_json(cls, key: str, image: bytes, image_format: str, caption: str, meta: Mapping[str, Any]) -> Sample:
        """Build a sample from the members of a shard; unusable regions are left out and counted in `dropped`."""
        if not isinstance(meta, Mapping) or "width" not in meta or "height" not in meta:
            raise DataError("bad_json", f"{key}.json: expected an object with 'width', 'height' and 'regions'")
        if not (_is_whole(meta["width"]) and _is_whole(meta["height"])):
            found = f"{meta['width']!r} and {meta['height']!r}"
            raise DataError("bad_size", f"{key}.json: expected width and height in whole pixels, got {found}")
        if meta.get("schema") != 1:
            raise DataError("bad_schema", f"{key}.json: expected schema 1, got {meta.get('schema')!r}")
        for name in ("regions", "captions"):
            if not isinstance(meta.get(name, []), list):
                raise DataError("bad_json", f"{key}.json: expected a list in {name!r}, got {meta[name]!r}")
        if not all(is_text(text) for text in (caption, *meta.get("captions", ()))):
            raise DataError("bad_text", f"{key}: expected captions that are UTF-8 texts")
        regions, dropped = [], Counter[str]()
        for entry in meta.get("regions", ()):
            try:
                region = Region.from_json(entry)
                kept = region.inside(meta["width"], meta["height"])
            except DataError as error:
                dropped[error.reason] += 1
                continue
            if kept is not region:
                dropped["box_cut_at_border"] += 1
            regions.append(kept)
        known = ("schema", "width", "height", "caption", "regions")
        extras = {k: v for k, v in meta.items() if k not in known}
        return cls(key, image, image_format, meta["width"], meta["height"], caption, tuple(regions), extras, dropped)

    def to_json(self) -> dict[str, Any]:
        """The content of KEY.json, schema 1."""
        head = {"schema": 1, "width": self.width, "height": self.height, "caption": self.caption}
        return {**head, "regions": [region.to_json() for region in self.regions], **self.extras}
