"""The objectives: which terms a step has, and how they add up (CLOC Eq. 4).

clip:  L_CLIP
cloc:  L_CLIP + lambda (L_CLOC + L_grounding),  lambda = region_weight * images with regions / images
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch

from cloc.comm import at_least_fp32, sum_over_ranks
from cloc.losses.pairs import Form, contrast_pairs
from cloc.structures import Batch, LossReport, Outputs

TERMS = ("image_text", "region_text", "grounding", "distillation")
"""Names of the terms, which are those of their weights in the config."""


@dataclass(frozen=True, slots=True)
class RegionTerms:
    """Settings of the region terms.

    Attributes:
        filter_threshold: cosine above which another region's text is no negative (CLOC 3.4: 0.9); 1: no such test.
        filter_warmup: steps before the cosine part of the filter starts.
        filter_same_text: identical strings are no negatives of each other, from the first step on.
        ground_all: the box head answers for every region, not only for those whose phrase stands once in their image.
        form: how images and captions, regions and phrases are contrasted.
    """

    filter_threshold: float = 0.9
    filter_warmup: int = 0
    filter_same_text: bool = True
    ground_all: bool = False
    form: Form = field(default_factory=Form)


def clip_objective(outputs: Outputs, batch: Batch, step: int, form: Form | None = None) -> LossReport:
    """L_CLIP alone: images against their captions; images without a caption take no part."""
    images_of_captions = outputs.image_embeds[batch.caption_image]
    pairs = contrast_pairs(
        form or Form(), images_of_captions, outputs.caption_embeds, outputs.logit_scale, outputs.logit_bias
    )
    images = sum_over_ranks([len(batch.pixel_values), batch.images_with_regions], batch.pixel_values.device)
    counts = {"images": images[0], "images_with_regions": images[1], "captions": pairs.count}
    return LossReport({"image_text": pairs.loss}, counts, {"image_text_accuracy": pairs.accuracy})


def cloc_objective(outputs: Outputs, batch: Batch, step: int, settings: RegionTerms) -> LossReport:
    """All three terms of CLOC, unweighted."""
    image = clip_objective(outputs, batch, step, settings.form)
    # A cosine of equal strings may round above 1, so a threshold of 1 is no test at all instead of one against 1.
    by_cosine = step >= settings.filter_warmup and settings.filter_threshold < 1
    assert outputs.region_embeds is not None
    assert outputs.phrase_embeds is not None
    assert outputs.region_logit_scale is not None
    regions = contrast_pairs(
        settings.form,
        outputs.region_embeds,
        outputs.phrase_embeds[batch.phrase_of_region],
        outputs.region_logit_scale,
        outputs.region_logit_bias,
        batch.phrase_text_id[batch.phrase_of_region] if settings.filter_same_text else None,
        settings.filter_threshold if by_cosine else None,
    )
    terms, counts = {**image.terms, "region_text": regions.loss}, {**image.counts, "regions": regions.count}
    if outputs.grounded_boxes is not None:  # there is a box head
        boxes = batch.boxes[batch.boxes_mask]
        boxes = boxes if settings.ground_all else boxes[batch.unique_in_image]
        terms["grounding"], counts["grounded"] = grounding(outputs.grounded_boxes, boxes)
    return LossReport(
        terms,
        counts,
        {**image.gauges, "region_text_accuracy": regions.accuracy, "filtered_negatives": regions.filtered},
    )


def grounding(predicted: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Box prediction from a phrase prompt (CLOC Eq. 3): this rank's share of the mean squared error of the coordinates.

    Args:
        predicted: (K, 4) xyxy in [0, 1] of the canvas, of this rank; K may be 0.
        boxes: (K, 4) the annotated boxes.

    Returns:
        The local sum divided by 4 G, and G, the boxes of all ranks.
    """
    if predicted.shape != boxes.shape:
        raise ValueError(f"grounding: expected predictions of shape {tuple(boxes.shape)}, got {tuple(predicted.shape)}")
    count = int(sum_over_ranks([len(boxes)], boxes.device)[0])
    return (at_least_fp32(predicted) - at_least_fp32(boxes)).square().sum() / (4 * max(count, 1)), count


def distillation(embeds: torch.Tensor, teacher_embeds: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Staying near a teacher: one minus the cosine, averaged over the images of all ranks. Not in the paper; for
    continuing from old weights.

    Args:
        embeds: (B, E) unit norm; B may be 0 and may differ between ranks.
        teacher_embeds: (B, E) unit norm, without gradient.

    Returns:
        This rank's share of the term in [0, 2], and the global number of images.
    """
    (count,) = sum_over_ranks([len(embeds)], embeds.device)
    distances = 1 - (at_least_fp32(embeds) * at_least_fp32(teacher_embeds).detach()).sum(dim=1)
    return distances.sum() / max(count, 1), count


Objective = Callable[[Outputs, Batch, int], LossReport]


def make_objective(name: str, settings: RegionTerms) -> Objective:
    """The objective by its config name: `clip` or `cloc`."""
    if name == "clip":
        return lambda outputs, batch, step: clip_objective(outputs, batch, step, settings.form)
    if name == "cloc":
        return lambda outputs, batch, step: cloc_objective(outputs, batch, step, settings)
    raise ValueError(f"objective: expected clip or cloc, got {name!r}")


def total(report: LossReport, weights: Mapping[str, float]) -> torch.Tensor:
    """This rank's share of the loss to minimise: the region terms count by the share of images with regions."""
    share = report.counts["images_with_regions"] / max(report.counts["images"], 1)
    lambdas = {"region_text": share, "grounding": share}
    return cast(
        "torch.Tensor",
        sum(weights[name] * lambdas.get(name, 1.0) * term for name, term in report.terms.items()),
    )
