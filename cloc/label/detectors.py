"""Zero-shot detectors of transformers as `Proposer`s: OWL-ViT and OWLv2, Grounding DINO and MM-Grounding DINO, ours.

Letters: B images, Q phrases of the image with the most of them, K boxes, T text positions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_convert
from transformers import AutoModelForZeroShotObjectDetection, PreTrainedConfig

from cloc.data.concepts import ConceptDictionary
from cloc.label.models import describe_model, load_config, load_model
from cloc.label.proposals import Proposals, Proposer


class OwlProposer:
    """OWL-ViT and OWLv2. The position grid is fitted to the input size by the library's bicubic interpolation."""

    def __init__(self, model: Any, processor: Any, size: int, score: float) -> None:
        self.model, self.processor, self.score = model, processor, score
        self.size = {"height": size, "width": size}

    def propose(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Proposals]:
        """As `Proposer.propose`. Rows of phrases shorter than the longest are filled up, and the filling never wins."""
        longest = max(len(row) for row in phrases)
        queries = [text for row in phrases for text in (*row, *[" "] * (longest - len(row)))]
        context = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(
            queries, padding="max_length", truncation=True, max_length=context, return_tensors="pt"
        )
        pixels = self.processor.image_processor(list(images), size=self.size, return_tensors="pt").pixel_values
        with torch.inference_mode():
            outputs = self.model(
                input_ids=tokens.input_ids.to(self.model.device),
                attention_mask=tokens.attention_mask.to(self.model.device),
                pixel_values=pixels.to(self.model.device, self.model.dtype),
                interpolate_pos_encoding=True,
            )
        logits = outputs.logits.float()  # (B, K, Q)
        counts = torch.tensor([len(row) for row in phrases], device=logits.device)
        filling = torch.arange(longest, device=logits.device) >= counts[:, None]
        outputs.logits = logits.masked_fill(filling[:, None], -torch.inf)
        outputs.pred_boxes = outputs.pred_boxes.float()
        sizes = torch.tensor([(image.height, image.width) for image in images], device=logits.device)
        found = self.processor.image_processor.post_process_object_detection(outputs, self.score, sizes)
        return [_make_proposals(one["boxes"], one["scores"], one["labels"]) for one in found]


class GroundingDinoProposer:
    """Grounding DINO and MM-Grounding DINO: one sentence with all phrases; a phrase scores as its best token does.

    Images of a batch are padded to the largest, as in their training; their backbones see the padding a little.
    """

    def __init__(self, model: Any, processor: Any, size: int, score: float) -> None:
        self.model, self.processor, self.score = model, processor, score
        self.size = grounding_size(size)

    def propose(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Proposals]:
        """As `Proposer.propose`. A phrase that the text tower's limit cuts off finds nothing."""
        sentences, spans = zip(*(_join_phrases(row) for row in phrases), strict=True)
        tokens = self.processor.tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self.model.config.max_text_len,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            return_tensors="pt",
        )
        offsets = tokens.pop("offset_mapping").numpy()  # (B, T, 2) characters
        pictures = self.processor.image_processor(list(images), size=self.size, return_tensors="pt")
        pixels = pictures.pixel_values.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            outputs = self.model(
                pixel_values=pixels,
                pixel_mask=pictures.pixel_mask.to(self.model.device),
                **tokens.to(self.model.device),
            )
        scores = outputs.logits.float().sigmoid().cpu()  # (B, K, T)
        boxes_xyxy = box_convert(outputs.pred_boxes.float().cpu(), "cxcywh", "xyxy")
        return [self._of_image(scores[b], boxes_xyxy[b], offsets[b], spans[b], images[b]) for b in range(len(images))]

    def _of_image(
        self,
        scores: torch.Tensor,
        boxes_xyxy: torch.Tensor,
        offsets: np.ndarray,
        spans: Sequence[tuple[int, int]],
        image: Image.Image,
    ) -> Proposals:
        """From scores of (K, T) text positions to scores of phrases."""
        start, end = offsets[:, 0], offsets[:, 1]
        columns = []
        for first, last in spans:
            inside = torch.from_numpy((start >= first) & (end <= last) & (end > start))
            own = scores[:, : len(inside)][:, inside]
            columns.append(own.amax(dim=1) if own.shape[1] else torch.zeros(len(scores)))
        best, phrase = torch.stack(columns, dim=1).max(dim=1)
        kept = best > self.score
        scale = torch.tensor([image.width, image.height, image.width, image.height], dtype=torch.float32)
        return _make_proposals(boxes_xyxy[kept] * scale, best[kept], phrase[kept])


class ClocProposer:
    """Our own detector, from an export: `ClocForObjectDetection.detect`. The canvas is the export's own.

    Suppression and limit are left to `to_regions`, whose settings the card tells.
    """

    def __init__(self, model: Any, processor: Any, size: int, score: float) -> None:
        self.model, self.processor, self.score = model, processor, score
        known = ConceptDictionary.of_export(model.name_or_path) if model.config.detector_config.definitions else None
        self.read = str if known is None else known.sentence

    def propose(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Proposals]:
        """As `Proposer.propose`; every image has phrases of its own, so each is a call of its own."""
        answers = []
        for image, row in zip(images, phrases, strict=True):
            (found,) = self.model.detect(
                [image], list(map(self.read, row)), self.processor, limit=0, threshold=self.score, nms=1.0
            )
            answers.append(Proposals(found["boxes"], found["scores"], found["labels"]))
        return answers


FAMILIES: dict[str, Callable[..., Proposer]] = {
    "owlv2": OwlProposer,
    "owlvit": OwlProposer,
    "grounding-dino": GroundingDinoProposer,
    "mm-grounding-dino": GroundingDinoProposer,
    "cloc": ClocProposer,
}
"""Model types that can propose boxes, and the class that asks them."""


def grounding_size(size: int) -> dict[str, int]:
    """Shorter and longest side in pixels, in the proportion 800 : 1333 that these detectors were trained with."""
    return {"shortest_edge": size, "longest_edge": round(size * 1333 / 800)}


def describe_detector(name: str, size: int) -> dict[str, Any]:
    """What the card says about the detector; reads its config only, and refuses what cannot work.

    Raises:
        ValueError: there is no such model, its type is unknown here, or the size does not fit.
    """
    config = load_config(name, "detector")
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"--detector {name}: expected a model of type {', '.join(FAMILIES)}, got {config.model_type!r}; "
            "another one needs a Proposer of its own (cloc/label/proposals.py)"
        )
    facts = describe_model(name, config)
    facts["input"] = _describe_input(name, config, size)
    reads = config.model_type == "cloc" and config.detector_config.definitions
    if reads and ConceptDictionary.of_export(name) is None:
        print(f"warning: {name} was trained on `name, definition`, it is asked by phrase alone", file=sys.stderr)
    return facts


def _describe_input(name: str, config: PreTrainedConfig, size: int) -> str:
    """How an image gets into the detector, in words."""
    if config.model_type == "cloc":
        if getattr(config, "detector_config", None) is None:
            raise ValueError(
                f"--detector {name}: expected an export with a detector, got an encoder alone; train one with "
                "objective=detclip or joint"
            )
        return "the export's own canvas (--size is not used)"
    if FAMILIES[config.model_type] is GroundingDinoProposer:
        sides = grounding_size(size)
        return f"shorter side {sides['shortest_edge']}, longest at most {sides['longest_edge']} pixels"
    patch, native = config.vision_config.patch_size, config.vision_config.image_size
    if size % patch:
        near = max(size // patch, 1) * patch
        raise ValueError(f"--size {size}: expected a multiple of the detector's patch of {patch} pixels; take {near}")
    grid = f"{native // patch} x {native // patch}"
    if size == native:
        return f"{size} x {size} pixels, position grid {grid} as trained"
    fitted = f"{size // patch} x {size // patch}"
    return f"{size} x {size} pixels, position grid {grid} interpolated (bicubic) to {fitted}"


def load_proposer(name: str, size: int, score: float, device: str = "cpu", precision: str = "fp32") -> Proposer:
    """Load a detector; safetensors only.

    Args:
        name: folder or hub name.
        size: side of its input in pixels.
        score: boxes at or below this confidence are left out at once.
        device: where it runs.
        precision: fp32, bf16 or fp16.

    Raises:
        ValueError: there is no such model, or it cannot propose boxes.
    """
    family = FAMILIES.get(load_config(name, "detector").model_type)
    if family is None:
        describe_detector(name, size)  # says which types there are
    model, processor = load_model(AutoModelForZeroShotObjectDetection, name, "detector", precision)
    return family(model.to(device).eval(), processor, size, score)


def _join_phrases(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """`a. b.` and the [start, end) of each phrase in it. A full stop inside a phrase would end it, so it goes."""
    text, spans = "", []
    for phrase in phrases:
        clean = phrase.replace(".", " ")
        spans.append((len(text), len(text) + len(clean)))
        text += f"{clean}. "
    return text.rstrip(), spans


def _make_proposals(boxes_xyxy: torch.Tensor, scores: torch.Tensor, phrases: torch.Tensor) -> Proposals:
    return Proposals(boxes_xyxy.double().cpu().numpy(), scores.double().cpu().numpy(), phrases.cpu().numpy())
