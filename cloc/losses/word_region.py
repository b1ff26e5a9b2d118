"""Word-region contrast of image-text pairs (DetCLIPv2 3.3, L_cts): an image and a text are as similar as their parts.

The class logits without their bias are the similarities of concepts (the caption, its noun phrases) with regions. There
are two similarities of an image with a text, each with its own softmax (FILIP 2.1):

    s_T, text to image   mean over the text's concepts of each one's best region; softmax over the images
    s_I, image to text   mean over the image's regions of each one's best concept of the text; softmax over the texts

Concepts are exchanged and each rank scores all texts against its own images. For s_T the score columns are exchanged as
well, and each rank takes the softmax of its own texts over all images; for s_I it takes that of its own images over all
texts. The sum over ranks is the loss, and the sum of the ranks' gradients is its gradient.

Letters: B images and T texts of this rank (a text is what belongs to one image), N images and M texts of all ranks, U
concepts of this rank, V of all ranks, P pairs of an image and a concept, J concepts of a text at most, k proposals, E
embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

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
        accuracy: share of the global share of texts whose best image by s_T is their own; with `image_to_text` that of
            images (those with a text) whose best text by s_I is their own.
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
        pair_image: (P,) which image a pair belongs to, rising. An image without a pair has no text: by s_T it is a
            wrong answer only, by s_I it takes no part.
        pair_concept: (P,) its row among the concepts.
        matching: a concept's similarity with an image is that of its best region (`max`), the mean over the regions
            weighted with a softmax of their similarities (`softmax`), or that of the largest region; then the first
            concept of each image, its caption, stands alone (as Detic does). A region's similarity with a text is made
            in the same way from the text's concepts; with `largest_box` s_T and s_I are one.
        direction: `text_to_image` by s_T (the paper), `image_to_text` by s_I, or `both`: the mean of these two losses,
            each with its own similarity and its own softmax.
        temperature: of the softmax over images or texts.
        label_smoothing: share of the target that is spread over all columns.
        matching_temperature: of the softmax over regions, or over a text's concepts.
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
    regions, how = at_least_fp32(regions), (matching, matching_temperature, max_entries)
    parts = []
    if direction != "image_to_text":
        found = score_concepts(all_texts, regions, mask, scale, *how)
        members = torch.bincount(all_pair_texts, minlength=count).to(found.dtype)
        scores = found.new_zeros(count, len(regions)).index_add(0, all_pair_texts, found[all_pair_concepts])
        scores = scores / members.unsqueeze(1) / temperature
        parts.append(_softmax_over_images(scores, text_image, text_start, label_smoothing))
    if direction != "text_to_image":
        concepts, given = group_concepts(all_pair_texts, all_pair_concepts, count)
        scores = score_regions(all_texts, concepts, given, regions, mask, scale, *how) / temperature
        parts.append(_softmax_over_texts(scores, text_image, text_start, label_smoothing))
    loss, right = cast("torch.Tensor", sum(loss for loss, _ in parts)) / len(parts), parts[0][1]
    return WordRegion(loss / count, count, right / count)


def _softmax_over_images(
    scores: torch.Tensor, text_image: torch.Tensor, text_start: int, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of this rank's texts: sum of the cross entropies from (M, B) s_T over the temperature, and how many are right."""
    columns, image_start = gather_rows(scores.T.contiguous())
    to_image, target = columns.T[text_start : text_start + len(text_image)], text_image + image_start
    return _cross_entropies(to_image, target, scores, label_smoothing)


def _softmax_over_texts(
    scores: torch.Tensor, text_image: torch.Tensor, text_start: int, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of this rank's images that have a text, from (M, B) s_I over the temperature."""
    own_text = torch.arange(len(text_image), device=scores.device) + text_start
    return _cross_entropies(scores.T[text_image], own_text, scores, label_smoothing)


def _cross_entropies(
    logits: torch.Tensor, target: torch.Tensor, scores: torch.Tensor, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    right = (logits.detach().argmax(dim=1) == target).sum() if len(target) else target.sum()
    loss = scores.sum() * 0.0  # a rank without texts has a graph as well
    return loss + F.cross_entropy(logits, target, reduction="sum", label_smoothing=label_smoothing), right


def score_concepts(
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
        return _matched(similarity, mask, 2, matching, matching_temperature)


def group_concepts(
    pair_text: torch.Tensor, pair_concept: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(M, J) the concepts of each text, and where there is one.

    Args:
        pair_text: (P,) rising; every one of the `count` texts has a pair.
        pair_concept: (P,) the concept of each pair.
        count: M.
    """
    members = torch.bincount(pair_text, minlength=count)
    slot = torch.arange(len(pair_text), device=pair_text.device) - (members.cumsum(0) - members)[pair_text]
    given = torch.arange(int(members.max()), device=pair_text.device) < members.unsqueeze(1)
    return torch.zeros_like(given, dtype=torch.int64).index_put((pair_text, slot), pair_concept), given


def score_regions(
    texts: torch.Tensor,
    concepts: torch.Tensor,
    given: torch.Tensor,
    regions: torch.Tensor,
    mask: torch.Tensor,
    scale: torch.Tensor,
    matching: Matching,
    matching_temperature: float,
    max_entries: int = MAX_ENTRIES,
) -> torch.Tensor:
    """(M, B) s_I of every text with every image's regions (B, k, E), in chunks of texts.

    The concepts of a text are rows (M, J) of `texts` (V, E), where `given`. An image without a proposal has the
    similarity 0 with every text.
    """
    chunk = max(1, max_entries // max(mask.numel() * concepts.shape[1], 1))
    fixed = (regions, mask, scale, matching, matching_temperature)
    if len(concepts) <= chunk:
        return _score_texts(texts, concepts, given, *fixed)
    parts = [
        checkpoint(_score_texts, texts, rows, there, *fixed, use_reentrant=False)
        for rows, there in zip(concepts.split(chunk), given.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def _score_texts(
    texts: torch.Tensor,
    concepts: torch.Tensor,
    given: torch.Tensor,
    regions: torch.Tensor,
    mask: torch.Tensor,
    scale: torch.Tensor,
    matching: Matching,
    matching_temperature: float,
) -> torch.Tensor:
    with torch.autocast(texts.device.type, enabled=False):
        similarity = scale * (texts[concepts.flatten()] @ regions.flatten(0, 1).T)
        similarity = similarity.view(*concepts.shape, *mask.shape)
        best = _matched(similarity, given[:, :, None, None], 1, matching, matching_temperature)
        return best.masked_fill(~mask, 0.0).sum(dim=2) / mask.sum(dim=1).clamp(min=1)


def _matched(
    similarity: torch.Tensor, mask: torch.Tensor, dim: int, matching: Matching, matching_temperature: float
) -> torch.Tensor:
    """What is found along `dim` among what `mask` leaves: the best, or the mean weighted with a softmax."""
    masked = similarity.masked_fill(~mask, torch.finfo(similarity.dtype).min)
    if matching == "softmax":
        return ((masked / matching_temperature).softmax(dim=dim) * similarity).sum(dim=dim)
    return masked.max(dim=dim).values


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
    *,
    matching: Matching = "max",
    direction: Direction = "text_to_image",
    temperature: float = 0.5,
    label_smoothing: float = 0.1,
    matching_temperature: float = 1.0,
) -> torch.Tensor:
    """The definition, in one process: one text and one image at a time."""
    total = (regions.sum() + texts.sum()) * 0.0 + scale * 0.0
    sentences = [(i, [c for j, c in _pairs(pair_image, pair_concept) if j == i]) for i in range(len(regions))]
    sentences = [(image, concepts) for image, concepts in sentences if concepts]

    def pick(values: list[torch.Tensor]) -> torch.Tensor:
        found = torch.stack(values)
        return found.max() if matching != "softmax" else ((found / matching_temperature).softmax(0) * found).sum()

    def similar(concepts: list[int], image: int, by_region: bool) -> torch.Tensor:
        slots = mask[image].nonzero()[:, 0].tolist()
        if matching == "largest_box":
            concepts, slots = concepts[:1], slots[:1]
        table = [[scale * (texts[c] @ regions[image, r]) for r in slots] for c in concepts]
        lines = [list(column) for column in zip(*table, strict=True)] if by_region else table
        return cast("torch.Tensor", sum(pick(line) for line in lines)) / len(lines) / temperature

    def cross_entropy(scores: list[torch.Tensor], target: int) -> torch.Tensor:
        log_share = torch.stack(scores).log_softmax(0)
        return -(1 - label_smoothing) * log_share[target] - label_smoothing * log_share.mean()

    halves = 2 if direction == "both" else 1
    for number, (image, concepts) in enumerate(sentences):
        if direction != "image_to_text":
            scores = [similar(concepts, other, by_region=False) for other in range(len(regions))]
            total = total + cross_entropy(scores, image) / halves
        if direction != "text_to_image":
            scores = [similar(others, image, by_region=True) for _, others in sentences]
            total = total + cross_entropy(scores, number) / halves
    return total / max(len(sentences), 1)


def _pairs(pair_image: torch.Tensor, pair_concept: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(pair_image.tolist(), pair_concept.tolist(), strict=True))
