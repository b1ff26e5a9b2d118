"""What a task may ask of a detector, and the readout of our own.

Letters: B images, N boxes of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.predictors.contract import Boxes
from cloc.data.concepts import ConceptDictionary
from cloc.model_folders import refusing_unreadable
from cloc.text import concept_sentence

LIMIT = 300
"""Boxes an image that a readout returns where it is not asked for more: what LVIS's protocol takes."""
A_LEVEL = 1000
"""(box, name) pairs of each level of our detector that reach the suppression where no more are asked for."""
NAME, DEFINED = "name", "name+definition"
"""Forms in which a detector is asked for a category; a part of the protocol."""


@dataclass(frozen=True, eq=False)
class Found:
    """Boxes found on one image, surest first.

    Attributes:
        boxes_xyxy: (N, 4) float64 pixels of the original image.
        scores: (N,) float64.
        labels: (N,) int64 index into the names that were asked for.
    """

    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = self.boxes_xyxy.shape, self.scores.shape, self.labels.shape
        if shapes != ((len(self.scores), 4), (len(self.scores),), (len(self.scores),)):
            raise ValueError(f"detections: expected (N, 4) boxes, (N,) scores and (N,) labels, got {shapes}")
        if not (np.isfinite(self.boxes_xyxy).all() and np.isfinite(self.scores).all()):
            raise ValueError("detections: expected finite boxes and scores, got NaN or infinity from the model")


class DetectorPredictor(Protocol):
    """One way to find named things. `kind` is `detector`.

    Attributes:
        form: in which the model was trained to read a category, `NAME` or `DEFINED`.
        dictionary: what it was trained with, if it has any of its own.
    """

    kind: str
    form: str
    dictionary: ConceptDictionary | None

    @property
    def name(self) -> str:
        """Short name, the same for the same way of readout."""

    def detect(self, images: Sequence[Image.Image], names: Sequence[str], limit: int = LIMIT) -> list[Found]:
        """For each of B RGB images the boxes of the names, at most `limit`; names are asked as they are."""

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """For each of B RGB images with P phrases, (P, 4): the surest box when the phrase is the only concept, NaN
        where there is none.
        """


def ground_alone(
    detect: Callable[[Sequence[Image.Image], Sequence[str]], list[Found]],
    images: Sequence[Image.Image],
    phrases: Sequence[Sequence[str]],
) -> list[Boxes]:
    """`DetectorPredictor.ground` through `detect`, one pass a phrase: what any detector can do."""
    found = []
    for image, own in zip(images, phrases, strict=True):
        boxes = np.full((len(own), 4), np.nan)
        for row, phrase in enumerate(own):
            (answer,) = detect([image], [phrase])
            if len(answer.scores):
                boxes[row] = answer.boxes_xyxy[0]
        found.append(boxes)
    return found


class ClocDetector:
    """An export with detection heads; its processor knows the placement."""

    kind = "detector"
    name = "cloc-detector"

    def __init__(self, folder: Path, device: str, batch_size: int, boxes_a_level: int = A_LEVEL) -> None:
        from transformers import AutoProcessor

        from cloc import ClocForObjectDetection

        with refusing_unreadable(folder):
            model = ClocForObjectDetection.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)
            self.processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        self.model: Any = cast(Any, model).to(device).eval()
        self.form = DEFINED if self.model.config.detector_config.definitions else NAME
        self.dictionary = ConceptDictionary.of_export(folder) if self.form == DEFINED else None
        self.batch_size, self.boxes_a_level = batch_size, boxes_a_level

    def detect(self, images: Sequence[Image.Image], names: Sequence[str], limit: int = LIMIT) -> list[Found]:
        """See `DetectorPredictor.detect`."""
        found = []
        for start in range(0, len(images), self.batch_size):
            part = list(images[start : start + self.batch_size])
            asked = {"limit": limit, "threshold": 0.0, "per_level": self.boxes_a_level}
            answers = self.model.detect(part, list(names), self.processor, **asked)
            found += [as_found(a["boxes"], a["scores"], a["labels"], limit) for a in answers]
        return found

    @torch.inference_mode()
    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """See `DetectorPredictor.ground`. Concepts do not see each other, so one pass serves all of an image."""
        return [self._surest(image, list(own)) for image, own in zip(images, phrases, strict=True)]

    def _surest(self, image: Image.Image, phrases: list[str]) -> Boxes:
        """(P, 4); suppression never takes the surest box, so it is left out."""
        boxes = np.full((len(phrases), 4), np.nan)
        if not phrases:
            return boxes
        read = concept_sentence if self.dictionary is None else self.dictionary.sentence
        texts = self.model.embed_concept_names([read(phrase) for phrase in phrases], self.processor)
        images = self.processor.detection_images()
        outputs = self.model(images(image)["pixel_values"].to(self.model.device), text_embeds=texts)
        pixels, real = images.to_pixels(outputs.pred_boxes[0], outputs.canvas.tolist(), *image.size)
        if real.any():
            scores = outputs.logits[0].float().sigmoid() * outputs.centerness[0].float().sigmoid()[:, None]
            boxes[:] = pixels[scores.cpu().numpy()[real].argmax(axis=0)]
        return boxes


def as_found(boxes_xyxy: Any, scores: Any, labels: Any, limit: int = LIMIT) -> Found:
    """Tensors or arrays as `Found`, the `limit` surest; of equal scores the first stays first."""
    boxes, label = _plain(boxes_xyxy).astype(np.float64).reshape(-1, 4), _plain(labels).astype(np.int64)
    whole = Found(boxes, _plain(scores).astype(np.float64), label)
    order = np.argsort(-whole.scores, kind="stable")[:limit]
    return Found(whole.boxes_xyxy[order], whole.scores[order], whole.labels[order])


def _plain(values: Any) -> NDArray:
    return values.detach().float().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
