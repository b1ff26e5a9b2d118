"""Public image-text encoders through transformers (CLIP, SigLIP, SigLIP2): whole images, and boxes as crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoModel

from benchmarks.predictors.clip_regions import crop_box
from benchmarks.predictors.contract import Boxes, Embeddings
from benchmarks.predictors.encoder import TEXTS_A_FORWARD, split_blocks, to_array
from benchmarks.predictors.fitting import load_hf_model

ENCODERS = ("clip", "siglip", "siglip2")
SIGLIP_TEXT = 64
"""Tokens SigLIP was trained on: it knows no attention mask, so every text is padded to this length."""


class HfCrop:
    """Each box is cut out and encoded as an image of its own, as people do with such a model."""

    kind = "encoder"
    name = "crop"
    cannot_ground: str | None = "an image-text encoder has no phrase prompt and no box head"

    def __init__(self, place: str, device: str, batch_size: int) -> None:
        self.model, self.processor = load_hf_model(AutoModel, place, device, dtype=torch.float32)
        self.device, self.batch_size = device, batch_size
        self.is_clip = self.model.config.model_type == "clip"

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """See `Predictor.encode_texts`. SigLIP and SigLIP2 were trained on lower case, so their texts are lowered: a
        SigLIP2 of fixed size says `siglip`, and the tokenizer beside it keeps capitals.
        """
        if not self.is_clip:
            texts = [text.lower() for text in texts]
        how = {"padding": True} if self.is_clip else {"padding": "max_length", "max_length": SIGLIP_TEXT}
        parts = []
        for chunk in split_blocks(texts, TEXTS_A_FORWARD):
            tokens = self.processor(text=list(chunk), truncation=True, return_tensors="pt", **how).to(self.device)
            parts.append(_unit(self.model.get_text_features(**tokens)))
        return _joined(parts, self._width)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """See `Predictor.encode_images`."""
        parts = []
        for chunk in split_blocks(images, self.batch_size):
            pixels = self.processor(images=list(chunk), return_tensors="pt").to(self.device)
            parts.append(_unit(self.model.get_image_features(**pixels)))
        return _joined(parts, self._width)

    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """See `Predictor.encode_regions`."""
        places = [(image, box) for image, boxes in zip(images, boxes_xyxy, strict=True) for box in boxes]
        parts = [
            self.encode_images([crop_box(*one) for one in chunk]) for chunk in split_blocks(places, self.batch_size)
        ]
        return np.split(_joined(parts, self._width), np.cumsum([len(boxes) for boxes in boxes_xyxy])[:-1])

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """Refused: see `cannot_ground`."""
        raise ValueError(f"{self.name}: {self.cannot_ground}")

    @property
    def _width(self) -> int:
        config = self.model.config
        return config.projection_dim if self.is_clip else config.text_config.projection_size


def _unit(features: Any) -> Embeddings:
    """Version 5 of transformers gives a model output, earlier ones a tensor."""
    values = features if isinstance(features, torch.Tensor) else features.pooler_output
    return to_array(F.normalize(values.float(), dim=-1))


def _joined(parts: Sequence[Embeddings], width: int) -> Embeddings:
    return np.concatenate([np.zeros((0, width), dtype=np.float32), *parts])
