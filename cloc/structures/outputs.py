"""What the model returns and what a loss gives; boxes are xyxy in [0, 1] of the model canvas.

Letters: B images, C captions, R regions, U different phrases or concepts, E shared embedding, G regions that feed the
grounding loss, K anchors of an image.

`ModelOutput` wants a default for every field; those that are always there are typed as tensors all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from transformers.utils import ModelOutput


@dataclass
class DetectionOutputs(ModelOutput):
    """What the detector returns: features, boxes and scales, no loss. Nothing here has unit norm.

    Attributes:
        logits: (B, K, U) class logits `logit_scale * class_features . text_embeds + logit_bias`; None when they were
            not asked for (training computes them in the loss, over the concepts of all ranks).
        pred_boxes: (B, K, 4) xyxy in [0, 1] of the canvas, not cut at its border.
        centerness: (B, K) logits.
        objectness: (B, K) logits of the class-agnostic score; None where the detector has none.
        class_features: (B, K, E).
        text_embeds: (U, E).
        logit_scale, logit_bias: scalars; the scale is already exponentiated.
        anchors: (K, 4) xyxy in [0, 1] of the canvas, from the finest level to the coarsest.
        level_sizes: (levels,) int64, anchors of each level; their sum is K.
        canvas: (2,) int64, width and height of the canvas in pixels.
        image_embeds, caption_embeds, image_logit_scale: as in `Outputs`, where captions were given.
    """

    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor = None  # type: ignore[assignment]
    centerness: torch.Tensor = None  # type: ignore[assignment]
    class_features: torch.Tensor = None  # type: ignore[assignment]
    text_embeds: torch.Tensor = None  # type: ignore[assignment]
    logit_scale: torch.Tensor = None  # type: ignore[assignment]
    logit_bias: torch.Tensor = None  # type: ignore[assignment]
    anchors: torch.Tensor = None  # type: ignore[assignment]
    level_sizes: torch.Tensor = None  # type: ignore[assignment]
    canvas: torch.Tensor = None  # type: ignore[assignment]
    image_embeds: torch.Tensor | None = None
    caption_embeds: torch.Tensor | None = None
    image_logit_scale: torch.Tensor | None = None
    objectness: torch.Tensor | None = None


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

    image_embeds: torch.Tensor = None  # type: ignore[assignment]
    caption_embeds: torch.Tensor = None  # type: ignore[assignment]
    region_embeds: torch.Tensor | None = None
    phrase_embeds: torch.Tensor | None = None
    grounded_boxes: torch.Tensor | None = None
    logit_scale: torch.Tensor = None  # type: ignore[assignment]
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
