"""What one rank gets for one step; boxes are xyxy in [0, 1] of the model canvas.

Letters: B images, C captions, M regions an image (padded), R regions in all, U different phrases or concepts, T text
tokens, L labels (a box may have several), P (image, concept) pairs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch

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
        prompt_coords: (B, M, 4) the box, the extent of the mask, or x, y, x, y of the point.
        prompt_patch_coverage: (B, M, rows, columns) share of each patch that the mask covers; zeros for other kinds.
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
    prompt_coords: torch.Tensor | None = None
    prompt_patch_coverage: torch.Tensor | None = None
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
class BatchKnowledge:
    """What the labels of each image tell of concepts that are not labelled in it: absent, or unknown.

    Concepts come from every image of every rank, so images name keys, and each concept says to which it answers; the
    kinds of keys and the rules are in `cloc.data.known`, what a loss makes of them in `cloc.losses.unknowns`.

    Attributes:
        closed: (B,) bool. True: absent, but for what `unknown` names; False: unknown, but for what `known` names.
        concept_keys: (N, 2) int64 [text id of a concept of this rank, a key that it answers to], one or more each.
        known: (M, 2) int64 [image, key] of what is known to be absent.
        unknown: (J, 2) int64 [image, key] of what nobody looked for.
        partly: (S, 2) int64 [image, key] of what is unknown within a box, labelled places excepted.
        partly_boxes: (S, 4) xyxy in [0, 1] of the canvas; infinite where it is unknown everywhere.
    """

    closed: torch.Tensor
    concept_keys: torch.Tensor
    known: torch.Tensor
    unknown: torch.Tensor
    partly: torch.Tensor
    partly_boxes: torch.Tensor

    @property
    def leaves_open(self) -> int:
        """How much of it is not simply `absent`; 0 where every concept that is not labelled is absent."""
        return int((~self.closed).sum()) + len(self.unknown) + len(self.partly)

    def to(self, device: torch.device | str) -> BatchKnowledge:
        """The same on another device."""
        return replace(self, **_moved(self, device))


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
        knowledge: what is absent and what unknown; None: every concept that is not labelled is absent.
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
    knowledge: BatchKnowledge | None = None
    keys: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        images = self.pixel_values.shape[0]
        if self.knowledge is not None and len(self.knowledge.closed) != images:
            raise ValueError(f"knowledge: expected {images} images, got {len(self.knowledge.closed)}")
        if self.boxes.shape != (*self.boxes_mask.shape, 4) or self.boxes.shape[0] != images:
            raise ValueError(f"boxes: expected ({images}, M, 4), got {tuple(self.boxes.shape)}")
        for name, other in (("label_box", "label_concept"), ("pair_image", "pair_concept")):
            if len(getattr(self, name)) != len(getattr(self, other)):
                raise ValueError(f"{name}: expected as many rows as {other}, got {len(getattr(self, name))}")
        if len(self.concept_ids) != len(self.concept_text_id):
            raise ValueError(f"concept_ids: expected {len(self.concept_text_id)} rows, got {len(self.concept_ids)}")

    def to(self, device: torch.device | str) -> ConceptBatch:
        """The same batch on another device."""
        moved = _moved(self, device)
        return replace(self, **moved, knowledge=None if self.knowledge is None else self.knowledge.to(device))


def _moved(batch: Batch | ConceptBatch | BatchKnowledge, device: torch.device | str) -> dict[str, Any]:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, torch.Tensor)}
