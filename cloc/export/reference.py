"""What an export makes of one picture that is the same everywhere: it tells when images are prepared in another way.

Another mean, padding, resize or order of the channels changes no key and no shape, and costs accuracy without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaImageProcessor
from transformers.utils import logging

from cloc.model_folders import refusing_unreadable
from cloc.models.modeling import ClocModel

COMPONENTS = 16
TOLERANCE = 2e-4
"""Largest difference of a component of the unit vector. On two trained exports of rendered scenes bilinear for bicubic
made 4e-4 and 7e-4, another mean or no padding 1e-2 and more; the same pixels are rounded by about 1e-6.
"""
PACKAGES = ("torch", "torchvision", "transformers", "pillow")


@lru_cache(maxsize=1)
def make_reference_picture() -> Image.Image:
    """90 x 60 RGB pixels in whole numbers: no square, no two channels alike, edges and ramps."""
    down, across = np.mgrid[:60, :90]
    channels = across * 255 // 89, down * 255 // 59, (across * 7 + down * 11) % 256
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@torch.no_grad()
def compute_reference(model: ClocModel, images: LlavaImageProcessor) -> list[float]:
    """The first `COMPONENTS` of the picture's image embedding (unit norm).

    Args:
        model: in evaluation mode, fp32.
        images: the export's image processor.
    """
    pixels = images.preprocess([make_reference_picture()], return_tensors="pt")["pixel_values"]
    embedding = model.get_image_features(torch.as_tensor(pixels).to(model.device))[0]
    return [round(float(value), 6) for value in embedding[:COMPONENTS]]


def make_reference(folder: Path, images: LlavaImageProcessor) -> dict[str, Any]:
    """The `reference` of an export's card, from the files just written.

    Args:
        folder: with config.json and model.safetensors.
        images: its image processor.
    """
    with _no_bar():
        model = ClocModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )  # a detector's own weights are left behind
    return {"image_embedding": compute_reference(model.eval(), images), "versions": _versions()}


def check_reference(card: Mapping[str, Any], model: ClocModel, images: LlavaImageProcessor, where: Path | str) -> None:
    """Refuse an export that does not give back what its card says; cards of earlier versions say nothing.

    Args:
        card: the export's.
        model: its model, in evaluation mode, fp32.
        images: its image processor.
        where: the folder, for the message.

    Raises:
        ValueError: the embedding differs by more than `TOLERANCE`.
    """
    stored = card.get("reference")
    if stored is None:
        return
    embedding = stored.get("image_embedding") if isinstance(stored, Mapping) else None
    if not isinstance(embedding, list) or not all(isinstance(one, (int, float)) for one in embedding):
        raise ValueError(f"{where}: expected numbers in reference.image_embedding of export.json; copy it again")
    with refusing_unreadable(where):  # a tampered processor fails where it is asked, with errors of many kinds
        found = compute_reference(model, images)
    if len(found) != len(embedding):
        raise ValueError(
            f"{where}: expected {len(found)} numbers in reference.image_embedding of export.json, got {len(embedding)}"
        )
    apart = max(abs(one - other) for one, other in zip(found, embedding, strict=True))
    if not apart <= TOLERANCE:
        raise ValueError(
            f"{where}: the reference picture's embedding differs by {apart:.2g} from the one in export.json, so images "
            "are prepared in another way than in training, or weights were changed. Written with "
            f"{stored.get('versions')}, read with {_versions()}; use those versions, or copy the whole folder again"
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@contextmanager
def _no_bar() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
