"""What all readouts of a `ClocModel` share: texts, and images made ready with their boxes.

Letters: B images, K boxes of one image, T texts, E shared embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from benchmarks.predictors.contract import Boxes, Embeddings
from benchmarks.predictors.loading import LoadedExport

TEXTS_A_FORWARD = 256


class EncoderReadout:
    """Base of the readouts: holds the model, encodes texts, cannot ground unless a subclass says so."""

    name = "encoder"
    cannot_ground: str | None = "a CLIP-only encoder has no phrase prompt and no box head"

    def __init__(self, loaded: LoadedExport) -> None:
        self.loaded = loaded
        self.model, self.processor, self.device = loaded.model, loaded.processor, loaded.device

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """(T, E), unit norm, the texts as they are. An empty list gives (0, E)."""
        parts = [np.zeros((0, self.model.config.vision_config.projection_dim), dtype=np.float32)]
        for chunk in blocks(texts, TEXTS_A_FORWARD):
            tokens = self.processor(text=list(chunk), return_tensors="pt").to(self.device)
            parts.append(to_array(self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """(B, E), unit norm, of whole images. An empty list gives (0, E)."""
        parts = [np.zeros((0, self.model.config.vision_config.projection_dim), dtype=np.float32)]
        for chunk in blocks(images, self.loaded.batch_size):
            pixels = self.processor(images=list(chunk), return_tensors="pt")["pixel_values"]
            parts.append(to_array(self.model.get_image_features(pixels.to(self.device))))
        return np.concatenate(parts)

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """Refused: see `cannot_ground`."""
        raise ValueError(f"{self.name}: {self.cannot_ground}")

    def prepared(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> Iterator[dict[str, torch.Tensor]]:
        """Batches for the model: pixel_values (B, 3, S, S), boxes (B, K, 4) on the canvas and their mask (B, K)."""
        size = self.loaded.batch_size
        for part, boxes in zip(blocks(images, size), blocks(boxes_xyxy, size), strict=True):
            inputs = self.processor(images=list(part), boxes=list(boxes), return_tensors="pt")
            yield {name: inputs[name].to(self.device) for name in ("pixel_values", "boxes", "boxes_mask")}


def blocks(items: Sequence, size: int) -> Iterator[Sequence]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def to_array(tensor: torch.Tensor) -> Embeddings:
    """A tensor as float32 on the CPU."""
    return tensor.float().cpu().numpy()


def by_image(embeds: torch.Tensor, mask: torch.Tensor) -> list[Embeddings]:
    """(B, K, E) with a mask (B, K) to one (K, E) for each image, padding left out."""
    return [to_array(rows[kept]) for rows, kept in zip(embeds, mask, strict=True)]
