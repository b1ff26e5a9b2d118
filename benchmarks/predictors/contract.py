"""What a task may ask of a model.

Letters: B images, K boxes of one image, P phrases of one image, T texts, E shared embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embeddings = NDArray[np.float32]
Boxes = NDArray[np.float64]
NO_MODEL = "none"


class Predictor(Protocol):
    """One way to read one model. All embeddings have unit norm; all boxes are xyxy pixels of the original image."""

    @property
    def name(self) -> str:
        """Short name, the same for the same way of readout, for example `clip-roialign`."""

    @property
    def cannot_ground(self) -> str | None:
        """None where `ground` works, else why it does not."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """(T, E), the texts as they are: no template is put around them."""

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """(B, E) of whole RGB images."""

    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """For each of B RGB images with (K, 4) boxes, (K, E); K may differ and may be 0."""

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """For each of B RGB images with P phrases, (P, 4): one box for each phrase, cut at the image's border.

        Raises:
            ValueError: the model cannot; `cannot_ground` says so beforehand.
        """


@dataclass(frozen=True)
class LoadedModel:
    """One of the models of a run and its readouts.

    Attributes:
        label: name of the model, as in `Row.model`.
        sha256: of its weights.
        predictors: its readouts; none where no model was given.
        folder: of the export or run, for its training curves.
        description: what it is, in a few words.
    """

    label: str
    sha256: str | None
    predictors: Sequence[Any]
    folder: Path | None = None
    description: str = ""


NOTHING_LOADED = LoadedModel(NO_MODEL, None, ())
