"""What travels between the rooms. Each noun proves itself once, when it is made; nobody re-checks it afterwards.

`Region` and `Sample` live on disk's side of the door (xyxy pixels of the original image); `Batch`, `ConceptBatch` and
the outputs live inside (xyxy in [0, 1] of the model canvas). Letters: B images, C captions, M regions an image
(padded), R regions in all, U different phrases or concepts, T text tokens, E shared embedding, G regions that feed the
grounding loss, K anchors of an image, L labels (a box may have several), P (image, concept) pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from transformers.utils import ModelOutput

from cloc.text import canonical


class DataError(ValueError):
    """One sample or region that cannot be used. `reason` is the short name under which it is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Box = tuple[float, float, float, float]


def _is_text(value: object) -> bool:
    """A string without half a surrogate pair, which JSON lets through and no tokenizer takes."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


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
        if len(self.box) != 4 or not all(isinstance(v, (int, float)) for v in self.box):
            raise DataError("bad_box", f"box: expected four numbers [x0, y0, x1, y1] in pixels, got {self.box!r}")
        if not all(abs(v) < math.inf for v in self.box):  # isfinite refuses huge integers with an error of its own
            raise DataError("nan_box", f"box: expected finite numbers, got {self.box!r}")
        x0, y0, x1, y1 = self.box
        if x1 <= x0 or y1 <= y0:
            raise DataError("empty_box", f"box: expected x1 > x0 and y1 > y0 (xyxy pixels), got {self.box!r}")
        if not _is_text(self.phrase) or not canonical(self.phrase):
            raise DataError("empty_phrase", f"phrase: expected a text, got {self.phrase!r}")

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Region:
        """Read one entry of `regions` of a shard's KEY.json.

        Raises:
            DataError: the entry has no usable box or phrase.
        """
        if not isinstance(entry, Mapping) or "box" not in entry or "phrase" not in entry:
            raise DataError("bad_region", f"region: expected an object with 'box' and 'phrase', got {entry!r}")
        extras = {k: v for k, v in entry.items() if k not in ("box", "phrase", "score")}
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
        x0, y0, x1, y1 = self.box
        cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if cut == self.box:
            return self
        if cut[2] <= cut[0] or cut[3] <= cut[1]:
            raise DataError("box_outside", f"box {self.box!r} lies outside its image of {width} x {height} pixels")
        return replace(self, box=cut)


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
        if not (isinstance(self.width, int) and isinstance(self.height, int)) or min(self.width, self.height) < 1:
            raise DataError(
                "bad_size", f"{self.key}: expected width and height in pixels, got {self.width}x{self.height}"
            )

    @classmethod
    def from_json(cls, key: str, image: bytes, image_format: str, caption: str, meta: Mapping[str, Any]) -> Sample:
        """Build a sample from the members of a shard; unusable regions are left out and counted in `dropped`."""
        if not isinstance(meta, Mapping) or "width" not in meta or "height" not in meta:
            raise DataError("bad_json", f"{key}.json: expected an object with 'width', 'height' and 'regions'")
        if not (isinstance(meta["width"], int) and isinstance(meta["height"], int)):
            raise DataError("bad_size", f"{key}.json: expected width and height in pixels, got {meta['width']!r}")
        if meta.get("schema") != 1:
            raise DataError("bad_schema", f"{key}.json: expected schema 1, got {meta.get('schema')!r}")
        for name in ("regions", "captions"):
            if not isinstance(meta.get(name, []), list):
                raise DataError("bad_json", f"{key}.json: expected a list in {name!r}, got {meta[name]!r}")
        if not all(_is_text(text) for text in (caption, *meta.get("captions", ()))):
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


PROMPT_KINDS = ("box", "point", "mask")
"""What a region can be asked with beside its phrase; a batch names a kind by its row."""


@dataclass(slots=True)
class Batch:
    """What one rank gets for one step. All boxes are xyxy in [0, 1] of the model canvas.

    Attributes:
        pixel_values: (B, 3, H, W) float32, normalised.
        caption_ids, caption_attention: (C, T) token ids of the captions and 1 where a token is real.
        caption_image: (C,) which image a caption belongs to; images without a caption do not occur.
        boxes: (B, M, 4); rows beyond an image's regions are zero.
        boxes_mask: (B, M) bool, True where there is a region. Row-major over True gives the R regions.
        phrase_ids, phrase_attention: (U, T) token ids of the different phrases of this batch.
        phrase_of_region: (R,) row of `phrase_ids` for each region.
        phrase_text_id: (U,) int64, equal for equal strings on every rank.
        unique_in_image: (R,) bool, the phrase stands for one region of its image only, so it can feed grounding.
        prompt_kinds: (B, M) int64 rows of `PROMPT_KINDS`, what each region is asked with; None: all with their box.
        prompt_places: (B, M, 4) the box, the extent of the mask, or x, y, x, y of the point.
        prompt_cover: (B, M, rows, columns) share of each patch that the mask covers; zeros for other kinds.
        keys: the samples' keys, for messages.
        skipped: samples and regions left out so far in this batch, by reason.
    """

    pixel_values: torch.Tensor
    caption_ids: torch.Tensor
    caption_attention: torch.Tensor
    caption_image: torch.Tensor
    boxes: torch.Tensor
    boxes_mask: torch.Tensor
    phrase_ids: torch.Tensor
    phrase_attention: torch.Tensor
    phrase_of_region: torch.Tensor
    phrase_text_id: torch.Tensor
    unique_in_image: torch.Tensor
    prompt_kinds: torch.Tensor | None = None
    prompt_places: torch.Tensor | None = None
    prompt_cover: torch.Tensor | None = None
    keys: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        images, regions = self.pixel_values.shape[0], int(self.boxes_mask.sum())
        if self.boxes.shape != (*self.boxes_mask.shape, 4) or self.boxes.shape[0] != images:
            raise ValueError(f"boxes: expected ({images}, M, 4), got {tuple(self.boxes.shape)}")
        if len(self.phrase_of_region) != regions or len(self.unique_in_image) != regions:
            raise ValueError(f"phrase_of_region: expected {regions} rows, got {len(self.phrase_of_region)}")
        if self.prompt_kinds is not None and self.prompt_kinds.shape != self.boxes_mask.shape:
            raise ValueError(
                f"prompt_kinds: expected {tuple(self.boxes_mask.shape)}, got {tuple(self.prompt_kinds.shape)}"
            )
        if len(self.caption_ids) != len(self.caption_image):
            raise ValueError(f"caption_ids: expected {len(self.caption_image)} rows, got {len(self.caption_ids)}")

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **_moved(self, device))

    @property
    def images_with_regions(self) -> int:
        """How many images of this batch have at least one region."""
        return int(self.boxes_mask.any(dim=1).sum())


ConceptKind = Literal["detection", "grounding", "pairs"]


@dataclass(slots=True)
class ConceptBatch:
    """What one rank gets for one step of one data type, in the one formulation of DetCLIPv2 (3.1): images, boxes and
    concepts, each concept a sentence of its own. Boxes are xyxy in [0, 1] of the canvas, on which an image lies at the
    top left, padded on the right and below.

    Attributes:
        kind: `detection` (boxes, the categories and negatives), `grounding` (boxes, phrases and negatives; alignment
            only), `pairs` (no boxes; the caption and its noun phrases).
        pixel_values: (B, 3, H, W) float32, normalised.
        extent: (B, 2) width and height of the image as shares of the canvas.
        boxes: (B, M, 4), different boxes of an image; rows beyond are zero.
        boxes_mask: (B, M) bool. Row-major over True gives the R boxes.
        label_box: (L,) row among the R boxes of each label; a box has one label or more.
        label_concept: (L,) its row among the U concepts.
        concept_ids, concept_attention: (U, T) tokens of the different concepts of this rank.
        concept_text_id: (U,) int64, equal for equal strings on every rank.
        pair_image: (P,) which image a pair belongs to; kind `pairs` only, else empty.
        pair_concept: (P,) its row among the U concepts.
        caption_ids, caption_attention, caption_image: whole captions at their full length as in `Batch`, for the
            joint objective; else empty.
        keys, skipped: as in `Batch`.
    """

    kind: ConceptKind
    pixel_values: torch.Tensor
    extent: torch.Tensor
    boxes: torch.Tensor
    boxes_mask: torch.Tensor
    label_box: torch.Tensor
    label_concept: torch.Tensor
    concept_ids: torch.Tensor
    concept_attention: torch.Tensor
    concept_text_id: torch.Tensor
    pair_image: torch.Tensor
    pair_concept: torch.Tensor
    caption_ids: torch.Tensor
    caption_attention: torch.Tensor
    caption_image: torch.Tensor
    keys: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        images = self.pixel_values.shape[0]
        if self.boxes.shape != (*self.boxes_mask.shape, 4) or self.boxes.shape[0] != images:
            raise ValueError(f"boxes: expected ({images}, M, 4), got {tuple(self.boxes.shape)}")
        for name, other in (("label_box", "label_concept"), ("pair_image", "pair_concept")):
            if len(getattr(self, name)) != len(getattr(self, other)):
                raise ValueError(f"{name}: expected as many rows as {other}, got {len(getattr(self, name))}")
        if len(self.concept_ids) != len(self.concept_text_id):
            raise ValueError(f"concept_ids: expected {len(self.concept_text_id)} rows, got {len(self.concept_ids)}")

    def to(self, device: torch.device | str) -> ConceptBatch:
        """The same batch on another device."""
        return replace(self, **_moved(self, device))


def _moved(batch: Batch | ConceptBatch, device: torch.device | str) -> dict[str, Any]:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, torch.Tensor)}


@dataclass
class DetectionOutputs(ModelOutput):
    """What the detector returns: features, boxes and scales, no loss. Nothing here has unit norm.

    Attributes:
        logits: (B, K, U) class logits `logit_scale * class_features . text_embeds + logit_bias`; None when they were
            not asked for (training computes them in the loss, over the concepts of all ranks).
        pred_boxes: (B, K, 4) xyxy in [0, 1] of the canvas, not cut at its border.
        centerness: (B, K) logits.
        class_features: (B, K, E).
        text_embeds: (U, E).
        logit_scale, logit_bias: scalars; the scale is already exponentiated.
        anchors: (K, 4) xyxy in [0, 1] of the canvas, from the finest level to the coarsest.
        level_sizes: (levels,) int64, anchors of each level; their sum is K.
        canvas: (2,) int64, width and height of the canvas in pixels.
        image_embeds, caption_embeds, image_logit_scale: as in `Outputs`, where captions were given.
    """

    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    centerness: torch.Tensor | None = None
    class_features: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None
    logit_bias: torch.Tensor | None = None
    anchors: torch.Tensor | None = None
    level_sizes: torch.Tensor | None = None
    canvas: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    caption_embeds: torch.Tensor | None = None
    image_logit_scale: torch.Tensor | None = None


@dataclass
class Outputs(ModelOutput):
    """What the model returns for one step: features and scales, no loss. Embeddings have unit norm.

    Attributes:
        image_embeds: (B, E).
        caption_embeds: (C, E).
        region_embeds: (R, E) of the box prompts, None for the objective `clip`.
        phrase_embeds: (U, E) of the different phrases.
        grounded_boxes: (G, 4) xyxy in [0, 1] of the canvas, one for each region whose phrase is unique in its image;
            None without a box head.
        logit_scale, region_logit_scale: scalars, already exponentiated and capped.
        logit_bias, region_logit_bias: scalars of the sigmoid form, None for the softmax form.
    """

    image_embeds: torch.Tensor | None = None
    caption_embeds: torch.Tensor | None = None
    region_embeds: torch.Tensor | None = None
    phrase_embeds: torch.Tensor | None = None
    grounded_boxes: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None
    region_logit_scale: torch.Tensor | None = None
    logit_bias: torch.Tensor | None = None
    region_logit_bias: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class LossReport:
    """Named, unweighted losses of one step.

    Attributes:
        terms: this rank's share of each term: a local sum divided by the global count, so that the sum over ranks is
            the term.
        counts: the global counts that the terms were divided by, and those that weights need.
        gauges: this rank's share of figures that are only logged (in-batch accuracy, share of filtered negatives).
    """

    terms: Mapping[str, torch.Tensor]
    counts: Mapping[str, float]
    gauges: Mapping[str, torch.Tensor] = field(default_factory=dict)
