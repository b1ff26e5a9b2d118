"""The detector's step on fake tensors: the model's own forward pass, and losses of the same shapes.

What depends on values is replaced by something as large: every box has `ANCHORS_A_BOX` positive anchors, every image
has all of its proposals. The assignment and the choice of proposals keep nothing and are left out. On an accelerator
the deformable convolution takes less than is counted here, which is the CPU's form of it.

Letters: B images, K anchors, U concepts, E embedding, k proposals.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from cloc.losses.alignment import focal_alignment
from cloc.losses.contrastive import contrast
from cloc.losses.detection import DetectionTerms
from cloc.losses.word_region import score_concepts
from cloc.models.pretraining import ClocDetectorForPreTraining
from cloc.plan.shapes import ConceptShapes
from cloc.structures import DetectionOutputs

ANCHORS_A_BOX = 8
"""Positive anchors of a box, about what ATSS gives."""


def detector_forward(
    model: ClocDetectorForPreTraining,
    shapes: ConceptShapes,
    pixels: torch.Tensor,
    captions: torch.Tensor,
    concepts: torch.Tensor,
) -> DetectionOutputs:
    """As in a step of training: no class logits; captions only where the kind reads them."""
    attention = torch.ones_like(concepts)
    if not shapes.caption_tokens:
        return model(pixels, input_ids=concepts, attention_mask=attention, with_logits=False)
    whole = {"caption_ids": captions, "caption_attention": torch.ones_like(captions)}
    return model(pixels, input_ids=concepts, attention_mask=attention, with_logits=False, **whole)


def detector_loss(outputs: DetectionOutputs, shapes: ConceptShapes, devices: int) -> torch.Tensor:
    """A scalar with the graph that the kind's terms have."""
    kept = [outputs.class_features, outputs.text_embeds]
    if shapes.kind == "pairs":
        total = _word_region(outputs, devices)
    else:
        total = _alignment(outputs, shapes, devices)
        kept += [outputs.pred_boxes, outputs.centerness] if shapes.kind == "detection" else []
    captions, scale = outputs.caption_embeds, outputs.image_logit_scale
    if captions is not None:
        assert outputs.image_embeds is not None
        assert scale is not None
        total = total + contrast(outputs.image_embeds, captions, scale).loss
    return total + sum(value.sum() * 0.0 for value in kept)


def _alignment(outputs: DetectionOutputs, shapes: ConceptShapes, devices: int) -> torch.Tensor:
    features, texts = outputs.class_features.flatten(0, 1), outputs.text_embeds.float()
    others = min(devices * shapes.concepts, shapes.categories or devices * shapes.concepts) - shapes.concepts
    texts = torch.cat([texts, texts.new_zeros(max(others, 0), texts.shape[1])])
    places = torch.zeros(max(shapes.boxes, 1) * ANCHORS_A_BOX, dtype=torch.int64)
    scale, bias = outputs.logit_scale, outputs.logit_bias
    total = focal_alignment(features, texts, scale, bias, places, torch.zeros_like(places))
    if shapes.kind == "detection":
        total = total + outputs.pred_boxes.flatten(0, 1)[places].sum() + outputs.centerness.flatten()[places].sum()
    return total


def _word_region(outputs: DetectionOutputs, devices: int) -> torch.Tensor:
    features, texts = outputs.class_features, outputs.text_embeds.float()
    images = len(features)
    most = min(DetectionTerms().num_proposals, features.shape[1])
    rows = torch.zeros(images, most, 1, dtype=torch.int64).expand(-1, -1, features.shape[2])
    regions, mask = features.gather(1, rows), torch.ones(images, most, dtype=torch.bool)
    everyone = texts.repeat(devices, 1)
    found = score_concepts(everyone, regions, mask, outputs.logit_scale, "max", 1.0)
    sentences = found.new_zeros(images * devices, images).index_add(
        0, torch.zeros(len(found), dtype=torch.int64), found
    )
    columns = sentences.T.repeat(devices, 1).T[:images]
    return F.cross_entropy(columns, torch.zeros(images, dtype=torch.int64), reduction="sum", label_smoothing=0.1)
