"""The detection objective: one data type a step, each with its own terms (DetCLIPv2 3.4).

detection:  alignment, giou, centerness, and objectness where proposals are ranked by a score that must be learnt
grounding:  alignment
pairs:      word_region
and image_text as well where whole captions were given (the joint objective). All unweighted.

Letters: B images, K anchors, R boxes, L labels, P positive anchors, U concepts, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from cloc.comm import at_least_fp32, sum_over_ranks
from cloc.losses.alignment import focal_alignment, gather_concepts
from cloc.losses.assignment import Assignment, assign
from cloc.losses.contrastive import contrast
from cloc.losses.localisation import LearntScore, localisation, objectness_loss
from cloc.losses.proposals import LEARNT_SCORES, ProposalScore, check_proposal_score, cut_at_border, propose
from cloc.losses.unknowns import find_unknowns
from cloc.losses.word_region import Direction, Matching, word_region
from cloc.structures import ConceptBatch, DetectionOutputs, LossReport

DETECTION_TERMS = ("alignment", "giou", "centerness", "objectness", "word_region")
"""Names of the terms, which are those of their weights in the config."""


@dataclass(frozen=True, slots=True)
class DetectionTerms:
    """Settings of the detection terms; the defaults are the paper's, or ATSS's where the paper is silent.

    Attributes:
        candidates: nearest anchors of each level that a box considers.
        nearest_when_none: a box that would have no anchor takes its best candidate.
        alpha, gamma: of the focal loss.
        proposal_score, num_proposals, proposal_nms: see `propose`.
        matching, direction, temperature, label_smoothing, matching_temperature: see `word_region`.
    """

    candidates: int = 9
    nearest_when_none: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    proposal_score: ProposalScore = "similarity_batch"
    num_proposals: int = 100
    proposal_nms: float = 0.6
    matching: Matching = "max"
    direction: Direction = "text_to_image"
    temperature: float = 0.5
    label_smoothing: float = 0.1
    matching_temperature: float = 1.0

    def __post_init__(self) -> None:
        check_proposal_score(self.proposal_score)

    @property
    def learns_score(self) -> bool:
        """Whether the score of proposals is one that detection data must train."""
        return self.proposal_score in LEARNT_SCORES


@dataclass(frozen=True, slots=True)
class Positives:
    """The positive anchors of a whole batch.

    Attributes:
        anchor_row: (P,) rows of the flattened (B K) anchors.
        anchor: (P,) rows of the K anchors.
        box: (P,) rows of the R boxes.
        forced: (P,) bool, see `Assignment`.
        lone: boxes without an anchor.
    """

    anchor_row: torch.Tensor
    anchor: torch.Tensor
    box: torch.Tensor
    forced: torch.Tensor
    lone: int


def detection_objective(
    outputs: DetectionOutputs, batch: ConceptBatch, step: int, settings: DetectionTerms
) -> LossReport:
    """The terms of this step's data type; whatever this rank holds, each has a graph to all that the kind trains."""
    if batch.kind == "pairs":
        report = _pairs(outputs, batch, settings)
    else:
        report = _boxes(outputs, batch, settings)
    if outputs.caption_embeds is None:
        return report
    assert outputs.image_embeds is not None
    assert outputs.image_logit_scale is not None
    pairs = contrast(outputs.image_embeds[batch.caption_image], outputs.caption_embeds, outputs.image_logit_scale)
    return LossReport(
        {**report.terms, "image_text": pairs.loss},
        {**report.counts, "captions": pairs.count},
        {**report.gauges, "image_text_accuracy": pairs.accuracy},
    )


def _boxes(outputs: DetectionOutputs, batch: ConceptBatch, settings: DetectionTerms) -> LossReport:
    """Detection and grounding data."""
    to_pixels = outputs.canvas.repeat(2).double()
    positives = assign_batch(outputs, batch, settings)
    own_open = 0 if batch.knowledge is None else batch.knowledge.leaves_open
    images, boxes, num, lone, left_open = sum_over_ranks(
        [len(batch.pixel_values), int(batch.boxes_mask.sum()), len(positives.anchor_row), positives.lone, own_open],
        batch.pixel_values.device,
    )
    texts, own = gather_concepts(at_least_fp32(outputs.text_embeds), batch.concept_text_id)
    anchor_rows, concepts = list_positive_pairs(positives, batch, own)
    unknown = find_unknowns(batch, own, len(texts), outputs.anchors) if left_open else None
    summed = focal_alignment(
        outputs.class_features.flatten(0, 1),
        texts,
        outputs.logit_scale,
        outputs.logit_bias,
        anchor_rows,
        concepts,
        settings.alpha,
        settings.gamma,
        unknown=None if unknown is None else unknown.entries,
        group=None if unknown is None else unknown.group,
    )
    predicted = at_least_fp32(outputs.pred_boxes).flatten(0, 1)[positives.anchor_row] * to_pixels.float()
    own_boxes = batch.boxes[batch.boxes_mask][positives.box] * to_pixels
    local = localisation(
        predicted,
        outputs.centerness.flatten()[positives.anchor_row],
        outputs.anchors[positives.anchor] * to_pixels,
        own_boxes,
        positives.forced,
        num,
    )
    terms = {"alignment": summed / max(num, 1) + _graph(outputs, localised=batch.kind == "detection", placed=True)}
    if batch.kind == "detection":
        terms |= {"giou": local.giou, "centerness": local.centerness}
    if batch.kind == "detection" and settings.learns_score:
        logits = _score_logits(outputs, settings).flatten()
        kind, focus = cast("LearntScore", settings.proposal_score), (settings.alpha, settings.gamma)
        crowded = None if unknown is None else unknown.crowded
        terms["objectness"] = objectness_loss(
            kind, logits, positives.anchor_row, predicted, own_boxes, num, *focus, crowded=crowded
        )
    counts = {"images": images, "boxes": boxes, "positives": num, "boxes_without_anchor": lone}
    return LossReport(terms, counts, {"positive_iou": local.mean_iou})


def _pairs(outputs: DetectionOutputs, batch: ConceptBatch, settings: DetectionTerms) -> LossReport:
    """Image-text pairs."""
    features, boxes = outputs.class_features, cut_at_border(outputs.pred_boxes, batch.extent)
    visible = (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    rows, mask = propose(
        features,
        boxes,
        outputs.centerness,
        outputs.text_embeds,
        outputs.logit_scale,
        outputs.logit_bias,
        batch.pair_image,
        batch.pair_concept,
        settings.proposal_score,
        settings.num_proposals,
        settings.proposal_nms,
        on_image(outputs.anchors, batch.extent) & visible,
        _score_logits(outputs, settings) if settings.learns_score else None,
    )
    if settings.matching == "largest_box":
        rows, mask = largest_first(rows, mask, boxes)
    found = word_region(
        features.gather(1, rows.unsqueeze(2).expand(-1, -1, features.shape[2])),
        mask,
        outputs.text_embeds,
        outputs.logit_scale,
        batch.pair_image,
        batch.pair_concept,
        matching=settings.matching,
        direction=settings.direction,
        temperature=settings.temperature,
        label_smoothing=settings.label_smoothing,
        matching_temperature=settings.matching_temperature,
    )
    images, proposals = sum_over_ranks([len(batch.pixel_values), int(mask.sum())], batch.pixel_values.device)
    return LossReport(
        {"word_region": found.loss + _graph(outputs, localised=False, placed=False)},
        {"images": images, "texts": found.texts, "proposals": proposals},
        {f"{'image_to_text' if settings.direction == 'image_to_text' else 'text_to_image'}_accuracy": found.accuracy},
    )


@torch.no_grad()
def assign_batch(outputs: DetectionOutputs, batch: ConceptBatch, settings: DetectionTerms) -> Positives:
    """The positive anchors of every image of a batch, in pixels of the canvas."""
    to_pixels = outputs.canvas.repeat(2).double()
    anchors, boxes = outputs.anchors * to_pixels, batch.boxes * to_pixels
    sizes, first_box = outputs.level_sizes.tolist(), 0
    found: list[tuple[int, int, Assignment]] = []
    for image, mask in enumerate(batch.boxes_mask):
        one = assign(anchors, sizes, boxes[image, mask], settings.candidates, settings.nearest_when_none)
        found.append((image, first_box, one))
        first_box += int(mask.sum())
    nothing = torch.zeros(0, dtype=torch.int64, device=anchors.device)
    return Positives(
        anchor_row=torch.cat([nothing, *(one.anchor + image * len(anchors) for image, _, one in found)]),
        anchor=torch.cat([nothing, *(one.anchor for _, _, one in found)]),
        box=torch.cat([nothing, *(one.box + first for _, first, one in found)]),
        forced=torch.cat([nothing.bool(), *(one.forced for _, _, one in found)]),
        lone=sum(one.lone for _, _, one in found),
    )


@torch.no_grad()
def list_positive_pairs(
    positives: Positives, batch: ConceptBatch, concept_rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(L,) rows of the flattened anchors and (L,) concepts of all ranks whose target is one, each pair once.

    Args:
        positives: of this rank's batch.
        batch: its labels say which concepts a box has, one or more.
        concept_rows: (U,) row of each own concept among those of all ranks.
    """
    positive, label = (positives.box[:, None] == batch.label_box[None, :]).nonzero(as_tuple=True)
    pairs = torch.stack([positives.anchor_row[positive], concept_rows[batch.label_concept[label]]], dim=1)
    pairs = pairs.unique(dim=0) if len(pairs) else pairs
    return pairs[:, 0], pairs[:, 1]


def on_image(anchors: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """(B, K) bool: whether the centre of an anchor lies on the image and not on the padding of its canvas.

    Args:
        anchors: (K, 4) xyxy in [0, 1] of the canvas.
        extent: (B, 2) width and height of each image as shares of the canvas.
    """
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    return (centres < extent.to(centres.dtype).unsqueeze(1)).all(dim=2)


def _score_logits(outputs: DetectionOutputs, settings: DetectionTerms) -> torch.Tensor:
    """(B, K) logits of the class-agnostic score.

    Raises:
        ValueError: the detector has none.
    """
    if outputs.objectness is None:
        raise ValueError(
            f"proposal_score {settings.proposal_score!r}: this detector has no class-agnostic score; make it with "
            f"detector_config.objectness={settings.proposal_score!r}, or use proposal_score='similarity_batch'"
        )
    return outputs.objectness


def largest_first(
    rows: torch.Tensor, mask: torch.Tensor, boxes_xyxy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image's largest proposal in front, the rest behind it."""
    chosen = boxes_xyxy.detach().gather(1, rows.unsqueeze(2).expand(-1, -1, 4))
    areas = (chosen[..., 2:] - chosen[..., :2]).prod(dim=2).masked_fill(~mask, -1.0)
    order = areas.argsort(dim=1, descending=True, stable=True)
    return rows.gather(1, order), mask.gather(1, order)


def _graph(outputs: DetectionOutputs, localised: bool, placed: bool) -> torch.Tensor:
    """Nought, with a graph to all that this kind of step trains, whatever this rank holds: every rank has a gradient
    for the same parameters. What the kind does not train stays out, so that its optimiser state rests.

    Args:
        outputs: of the model.
        localised: boxes and centerness are trained.
        placed: the bias of the similarity is trained; a contrast over images does not see it.
    """
    kept = [outputs.class_features, outputs.text_embeds, outputs.logit_scale]
    kept += [outputs.pred_boxes, outputs.centerness] if localised else []
    kept += [outputs.logit_bias] if placed else []
    return cast("torch.Tensor", sum(value.sum() * 0.0 for value in kept))
