"""Which regions of an image stand for it in the word-region contrast (DetCLIPv2 3.3): score, suppress, keep k.

Letters: B images, K anchors, U concepts of this rank, P pairs of an image and a concept, E embedding, k proposals.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torchvision.ops import nms

from cloc.comm import at_least_fp32

MAX_ENTRIES = 2**24
"""Similarities that are held at once."""

ProposalScore = Literal[
    "similarity_batch", "similarity_own", "centerness", "similarity_centerness", "foreground", "iou"
]
PROPOSAL_SCORES = get_args(ProposalScore)
LEARNT_SCORES = ("foreground", "iou")
"""Scores that need a class-agnostic head, which is trained on detection data."""


def check_proposal_score(name: str) -> None:
    """Refuse an unknown score.

    Raises:
        ValueError: the name is none of `PROPOSAL_SCORES`.
    """
    if name not in PROPOSAL_SCORES:
        raise ValueError(f"proposal_score: expected one of {PROPOSAL_SCORES}, got {name!r}")


@torch.no_grad()
def propose(
    features: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    centerness: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    pair_image: torch.Tensor,
    pair_concept: torch.Tensor,
    score: ProposalScore = "similarity_batch",
    num_proposals: int = 100,
    iou_threshold: float = 0.6,
    inside: torch.Tensor | None = None,
    objectness: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The proposals of each image.

    Args:
        features: (B, K, E); B may be 0.
        boxes_xyxy: (B, K, 4), any unit.
        centerness: (B, K) logits.
        texts: (U, E) concepts of this rank's batch.
        scale: scalar of the class logits.
        bias: scalar of the class logits.
        pair_image: (P,) which image a pair belongs to.
        pair_concept: (P,) its row among the concepts.
        score: `similarity_batch`: best similarity with any concept of this rank's batch, so that hard negatives are
            picked too (the paper); `similarity_own`: with the image's own; `centerness`; `similarity_centerness`: the
            product of both probabilities; `foreground` and `iou`: the class-agnostic score.
        num_proposals: k.
        iou_threshold: of two regions that overlap more, the one with the lower score is left out.
        inside: (B, K) bool, the regions that may be chosen: those of the image and not of the padding beside it. An
            image without any such region chooses from all; None: from all.
        objectness: (B, K) logits; read by `foreground` and `iou`, which need them.

    Returns:
        (B, k) rows of anchors by falling score, and (B, k) bool, False behind the last one of an image.
    """
    check_proposal_score(score)
    assert objectness is not None or score not in LEARNT_SCORES
    most = min(num_proposals, features.shape[1])
    rows = torch.zeros(len(features), most, dtype=torch.int64, device=features.device)
    mask = torch.zeros(len(features), most, dtype=torch.bool, device=features.device)
    for image in range(len(features)):
        own = pair_concept[pair_image == image] if score == "similarity_own" else slice(None)
        if objectness is not None and score in LEARNT_SCORES:
            scores = at_least_fp32(objectness[image])
        else:
            scores = _similarity_score(features[image], centerness[image], texts[own], scale, bias, score)
        boxes = at_least_fp32(boxes_xyxy[image])
        if inside is not None and inside[image].any():
            real = inside[image].nonzero()[:, 0]
            kept = real[nms(boxes[real], scores[real], iou_threshold)][:most]
        else:
            kept = nms(boxes, scores, iou_threshold)[:most]
        rows[image, : len(kept)], mask[image, : len(kept)] = kept, True
    return rows, mask


def cut_at_border(boxes_xyxy: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """Boxes (B, K, 4) in [0, 1] of the canvas, cut at the border of each image, as ATSS cuts them before it suppresses
    any; no gradient. A box outside has no area. `extent` (B, 2): width and height of the image as shares of the canvas.
    """
    boxes = at_least_fp32(boxes_xyxy.detach())
    return boxes.clamp(min=0).minimum(extent.to(boxes.dtype).repeat(1, 2).unsqueeze(1))


def _similarity_score(
    features: torch.Tensor,
    centerness: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    score: ProposalScore,
) -> torch.Tensor:
    """(K,) scores of the regions of one image; without a concept all similarities count as nought."""
    central = at_least_fp32(centerness).sigmoid()
    if score == "centerness" or len(texts) == 0:
        return central if "centerness" in score else torch.zeros_like(central)
    features, texts = at_least_fp32(features), at_least_fp32(texts)
    chunks = features.split(max(1, MAX_ENTRIES // len(texts)))
    best = scale * torch.cat([(chunk @ texts.T).amax(dim=1) for chunk in chunks])
    return (best + bias).sigmoid() * central if score == "similarity_centerness" else best
