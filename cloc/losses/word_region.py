"""Word-region contrast of image-text pairs (DetCLIPv2 3.3, s_T and L_cts): the caption and its noun phrases find their
regions, and the mean of what they find tells the text's image from all others.

The class logits without their bias are the similarities. Texts are exchanged and each rank scores all of them against
its own images; the score columns are exchanged, and each rank takes the softmax of its own texts over all images. The
sum over ranks is the loss, and the sum of the ranks' gradients is its gradient.

Letters: B images and T texts of this rank (a text is what belongs to one image), N images and M texts of all ranks, U
concepts of this rank, V of all ranks, P pairs of an image and a concept, k proposals, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cloc.comm import at_least_fp32, gather_rows

MAX_ENTRIES = 2**24
"""Similarities of concepts with regions that are held at once."""

Matching = Literal["max", "softmax", "largest_box"]
Direction = Literal["text_to_image", "image_to_text", "both"]


@dataclass(frozen=True, slots=True)
class WordRegion:
    """This rank's share.

    Attributes:
        loss: scalar, local sum over the global number of texts.
        texts: M.
        accuracy: share of the global share of texts whose best image is their own.
    """

    loss: torch.Tensor
    texts: int
    accuracy: torch.Tensor


def word_region(
    regions: torch.Tensor,
    mask: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    pair_image: torch.Tensor,
    pair_concept: torch.Tensor,
    *,
    matching: Matching = "max",
    direction: Direction = "text_to_image",
    temperature: float = 0.5,
    label_smoothing: float = 0.1,
    matching_temperature: float = 1.0,
    max_entries: int = MAX_ENTRIES,
) -> WordRegion:
    """Contrast texts with images.

    Args:
        regions: (B, k, E) class features of the proposals; B may be 0. For `largest_box` each image's largest comes
            first.
        mask: (B, k) True where there is a proposal.
        texts: (U, E) concepts of this rank.
        scale: scalar of the class logits.
        pair_image: (P,) which image a pair belongs to, rising. An image without a pair has no text; it takes part as a
            wrong answer only.
        pair_concept: (P,) its row among the concepts.
        matching: a concept's similarity with an image is that of its best region (`max`), the mean over the regions
            weighted with a softmax of their similarities (`softmax`), or that of the largest region; then the first
            concept of each image, its caption, stands alone (as Detic does).
        direction: softmax over the images for each text, over the texts for each image, or the mean of both.
        temperature: of that softmax.
        label_smoothing: share of the target that is spread over all columns.
        matching_temperature: of the softmax over regions.
        max_entries: similarities that are held at once; more are recomputed in the backward pass.

    Raises:
        ValueError: an unknown matching or direction.
    """
    _check_choice("matching", matching, ("max", "softmax", "largest_box"))
    _check_choice("direction", direction, ("text_to_image", "image_to_text", "both"))
    if matching == "largest_box":
        first = torch.ones_like(pair_image, dtype=torch.bool)
        first[1:] = pair_image[1:] != pair_image[:-1]
        pair_image, pair_concept, mask = pair_image[first], pair_concept[first], _first_only(mask)
    text_image, pair_text = pair_image.unique(return_inverse=True)
    all_texts, concept_start = gather_rows(at_least_fp32(texts))
    all_text_images, text_start = gather_rows(text_image)
    count = len(all_text_images)
    if count == 0:
        nothing = (regions.sum() + texts.sum()) * 0.0 + scale * 0.0
        return WordRegion(nothing, 0, nothing.detach())
    all_pair_texts, _ = gather_rows(pair_text + text_start)
    all_pair_concepts, _ = gather_rows(pair_concept + concept_start)
    found = concept_scores(all_texts, at_least_fp32(regions), mask, scale, matching, matching_temperature, max_entries)
    members = torch.bincount(all_pair_texts, minlength=count).to(found.dtype)
    scores = found.new_zeros(count, len(regions)).index_add(0, all_pair_texts, found[all_pair_concepts])
    scores = scores / members.unsqueeze(1) / temperature
    loss, right = _softmaxes(scores, text_image, text_start, direction, label_smoothing)
    return WordRegion(loss / count, count, right / count)


def _softmaxes(
    scores: torch.Tensor, text_image: torch.Tensor, text_start: int, direction: Direction, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Local sum of the cross entropies from (M, B) scores over the temperature, and how many own texts are right.

    Each rank takes the softmax of its own texts over all images, and that of its own images over all texts.
    """
    columns, image_start = gather_rows(scores.T.contiguous())
    to_image, target = columns.T[text_start : text_start + len(text_image)], text_image + image_start
    right = (to_image.detach().argmax(dim=1) == target).sum() if len(target) else target.sum()
    loss = scores.sum() * 0.0
    if direction != "image_to_text":
        loss = loss + F.cross_entropy(to_image, target, reduction="sum", label_smoothing=label_smoothing)
    if direction != "text_to_image":
        own_text = torch.arange(len(text_image), device=scores.device) + text_start
        to_text = scores.T[text_image]
        loss = loss + F.cross_entropy(to_text, own_text, reduction="sum", label_smoothing=label_smoothing)
    return loss / (2 if direction == "both" else 1), right


def concept_scores(
    texts: torch.Tensor,
    regions: torch.Tensor,
    mask: torch.Tensor,
    scale: torch.Tensor,
    matching: Matching,
    matching_temperature: float,
    max_entries: int = MAX_ENTRIES,
) -> torch.Tensor:
    """(V, B) similarity of every concept (V, E) with every image's regions (B, k, E), in chunks of concepts."""
    chunk = max(1, max_entries // max(mask.numel(), 1))
    if len(texts) <= chunk:
        return _score_chunk(texts, regions, mask, scale, matching, matching_temperature)
    parts = [
        checkpoint(_score_chunk, part, regions, mask, scale, matching, matching_temperature, use_reentrant=False)
        for part in texts.split(chunk)
    ]
    return torch.cat(parts)


def _score_chunk(
    texts: torch.Tensor,
    regions: torch.Tensor,
    mask: torch.Tensor,
    scale: torch.Tensor,
    matching: Matching,
    matching_temperature: float,
) -> torch.Tensor:
    with torch.autocast(texts.device.type, enabled=False):
        similarity = scale * (texts @ regions.flatten(0, 1).T).unflatten(1, mask.shape)
        masked = similarity.masked_fill(~mask, torch.finfo(similarity.dtype).min)
        if matching == "softmax":
            return ((masked / matching_temperature).softmax(dim=2) * similarity).sum(dim=2)
        return masked.max(dim=2).values


def _first_only(mask: torch.Tensor) -> torch.Tensor:
    """Only the first proposal of each image."""
    only = torch.zeros_like(mask)
    only[:, :1] = mask[:, :1]
    return only


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected one of {known}, got {value!r}")


def word_region_plain(
    regions: torch.Tensor,
    mask: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    pair_image: torch.Tensor,
    pair_concept: torch.Tensor,
    temperature: float = 0.5,
    label_smoothing: float = 0.1,
) -> torch.Tensor:
    """The definition, in one process, for `max` and `text_to_image`: one concept and one image at a time."""
    total = (regions.sum() + texts.sum()) * 0.0 + scale * 0.0
    sentences = [(i, [c for j, c in _pairs(pair_image, pair_concept) if j == i]) for i in range(len(regions))]
    sentences = [(image, concepts) for image, concepts in sentences if concepts]
    for image, concepts in sentences:
        scores = []
        for other in range(len(regions)):
            best = [max(scale * (texts[c] @ regions[other, r]) for r in mask[other].nonzero()[:, 0]) for c in concepts]
            scores.append(sum(best) / len(best) / temperature)
        log_share = torch.stack(scores).log_softmax(0)
        total = total - (1 - label_smoothing) * log_share[image] - label_smoothing * log_share.mean()
    return total / max(len(sentences), 1)


def _pairs(pair_image: torch.Tensor, pair_concept: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(pair_image.tolist(), pair_concept.tolist(), strict=True))
