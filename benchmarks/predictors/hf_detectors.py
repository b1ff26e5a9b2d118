"""Public open-vocabulary detectors through transformers: OWLv2 and OWL-ViT, Grounding DINO and MM-Grounding DINO.

Scores are read off the logits, not off the libraries' post-processing, which keeps one name a box: LVIS and COCO take
every (box, name) pair of high score. Letters: B images, Q boxes a model proposes, C names, T text tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection

from benchmarks.predictors.contract import Boxes
from benchmarks.predictors.detector import LIMIT, NAME, Found, as_found, ground_alone
from benchmarks.predictors.fitting import load_hf_model

OWL = ("owlv2", "owlvit")
GROUNDED = ("grounding-dino", "mm-grounding-dino")


class _Rival(ABC):
    """Model, processor and the last step that all share."""

    kind, form = "detector", NAME

    def __init__(self, place: str, device: str, batch_size: int) -> None:
        self.model, self.processor = load_hf_model(AutoModelForZeroShotObjectDetection, place, device)
        self.name, self.device, self.batch_size = self.model.config.model_type, device, batch_size

    @torch.inference_mode()
    def detect(self, images: Sequence[Image.Image], names: Sequence[str], limit: int = LIMIT) -> list[Found]:
        """See `DetectorPredictor.detect`."""
        found: list[Found] = []
        for start in range(0, len(images), self.batch_size):
            part = list(images[start : start + self.batch_size])
            parts: list[list[Found]] = [[] for _ in part]
            for first, scores, boxes_cxcywh in self._passes(part, list(names)):
                for own, image, values, places in zip(parts, part, scores, boxes_cxcywh, strict=True):
                    own.append(choose_best_pairs(values, self._pixels(places, image), first, limit))
            found += [merge_found(own, limit) for own in parts]
        return found

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """See `DetectorPredictor.ground`; one pass a phrase."""
        return ground_alone(self.detect, images, phrases)

    @abstractmethod
    def _passes(self, images: list[Image.Image], names: list[str]) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """For some names at a time: place of the first, (B, Q, C) scores, (B, Q, 4) centre boxes in [0, 1]."""

    def _pixels(self, boxes_cxcywh: torch.Tensor, image: Image.Image) -> torch.Tensor:
        """Corners in pixels of the image, cut at its border."""
        width, height = image.size
        frame = torch.tensor(self._frame(width, height), device=boxes_cxcywh.device)
        centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
        corners = torch.cat([centre - half, centre + half], dim=-1) * frame.repeat(2)
        return corners.clamp(min=0).minimum(corners.new_tensor([width, height, width, height]))

    def _frame(self, width: int, height: int) -> tuple[float, float]:
        """Pixels that 1.0 stands for across and down."""
        return float(width), float(height)


class OwlDetector(_Rival):
    """OWLv2 pads to a square at the bottom right, so 1.0 is the longer side; OWL-ViT stretches."""

    def __init__(self, place: str, device: str, batch_size: int) -> None:
        super().__init__(place, device, batch_size)
        self._asked: tuple[str, ...] = ()
        self._queries: torch.Tensor | None = None

    def _passes(self, images: list[Image.Image], names: list[str]) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"].to(self.device)
        grid, _ = self.model.image_embedder(pixels)
        patches = grid.flatten(1, 2)
        queries = self._embedded(names, pixels[:1]).expand(len(images), -1, -1)
        logits, _ = self.model.class_predictor(patches, queries)
        yield 0, logits.sigmoid(), self.model.box_predictor(patches, grid)

    def _embedded(self, names: list[str], pixels: torch.Tensor) -> torch.Tensor:
        """(1, C, D) of the names, encoded once and kept until other names are asked; any image will do for that."""
        if self._queries is None or self._asked != tuple(names):
            tokens = self.processor(text=[names], return_tensors="pt", truncation=True).to(self.device)
            self._queries = self.model(pixel_values=pixels, **tokens).text_embeds
            self._asked = tuple(names)
        return self._queries

    def _frame(self, width: int, height: int) -> tuple[float, float]:
        longer = float(max(width, height))
        return (longer, longer) if self.name == "owlv2" else (float(width), float(height))


class GroundedDetector(_Rival):
    """Names are joined to one text (`a. b. c.`), as many as fit; the rest is asked in further passes.

    A name's score is the mean of its tokens' scores. Each pass proposes boxes of its own.
    """

    def _passes(self, images: list[Image.Image], names: list[str]) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        tokenizer, first = self.processor.tokenizer, 0
        for chunk in split_names(names, tokenizer, self.model.config.max_text_len):
            text, spans = join_names(chunk)
            inputs = self.processor(text=[text] * len(images), images=images, return_tensors="pt").to(self.device)
            outputs = self.model(**inputs)
            weights = weigh_tokens(text, spans, tokenizer).to(outputs.logits)
            yield first, outputs.logits[..., : weights.shape[1]].sigmoid() @ weights.T, outputs.pred_boxes
            first += len(chunk)


def choose_best_pairs(scores: torch.Tensor, boxes_xyxy: torch.Tensor, first: int = 0, limit: int = LIMIT) -> Found:
    """The `limit` best (box, name) pairs of one pass.

    Args:
        scores: (Q, C).
        boxes_xyxy: (Q, 4).
        first: place of the first of these names among all.
        limit: pairs kept.
    """
    values, places = scores.flatten().topk(min(limit, scores.numel()))
    rows, labels = places // scores.shape[1], places % scores.shape[1]
    return as_found(boxes_xyxy[rows], values, labels + first, limit)


def merge_found(parts: Sequence[Found], limit: int = LIMIT) -> Found:
    """The `limit` best of several passes over one image."""
    boxes, scores, labels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes_xyxy", "scores", "labels")
    )
    return as_found(boxes, scores, labels, limit)


def join_names(names: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """`a. b. c.` in lower case, and where each name lies in it; a full stop inside a name would end it early."""
    text, spans = "", []
    for name in names:
        phrase = name.lower().replace(".", " ").strip()
        spans.append((len(text), len(text) + len(phrase)))
        text += f"{phrase}. "
    return text.rstrip(), spans


def split_names(names: Sequence[str], tokenizer: Any, max_tokens: int) -> list[list[str]]:
    """The names in order, as many in each chunk as fit in `max_tokens` with the two marks around them.

    Raises:
        ValueError: one name alone does not fit.
    """
    chunks: list[list[str]] = []
    used = max_tokens
    for name in names:
        length = len(tokenizer(join_names([name])[0], add_special_tokens=False)["input_ids"])
        if length + 2 > max_tokens:
            raise ValueError(f"name {name[:40]!r}...: has {length} tokens, the model reads {max_tokens}; shorten it")
        if used + length + 2 > max_tokens:
            chunks.append([])
            used = 0
        chunks[-1].append(name)
        used += length
    return chunks


def weigh_tokens(text: str, spans: Sequence[tuple[int, int]], tokenizer: Any) -> torch.Tensor:
    """(C, T) weights that average the tokens of each name."""
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    weights = torch.zeros(len(spans), len(offsets))
    for row, (start, end) in enumerate(spans):
        own = [t for t, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
        weights[row, own] = 1.0 / max(1, len(own))
    return weights
