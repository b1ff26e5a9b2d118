"""An export in memory, what all readouts of a `ClocModel` share, and the readout of CLOC itself.

That one gives boxes and phrases to the Prompter, with one image encoding for all of them (CLOC section 3.3).

Letters: B images, K boxes of one image, T texts, E shared embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import cloc  # noqa: F401  registers the model classes
from benchmarks.predictors.contract import Boxes, Embeddings
from cloc.export import read_card
from cloc.export.reference import check_reference
from cloc.model_folders import refusing_unreadable


@dataclass(frozen=True)
class LoadedExport:
    """An export, ready to be read.

    Attributes:
        label: name of its run, or of its folder.
        sha256: of model.safetensors, from export.json.
        objective: what it was trained with.
        model: `ClocModel` in evaluation mode, fp32.
        processor: `ClocProcessor`.
        device: where the model lies.
        batch_size: images or crops a forward.
    """

    label: str
    sha256: str | None
    objective: str
    model: Any
    processor: Any
    device: str
    batch_size: int


def find_export_folder(given: Path) -> Path:
    """The export that was meant: the folder itself, or `export/` in a run's folder.

    Raises:
        ValueError: there is none.
    """
    for folder in (given, given / "export"):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"{given}: expected an export (a folder with config.json), found none; "
        f"train one with `deepspeed cloc/pretrain.py` and give its folder, runs/NAME/export"
    )


def name_export(folder: Path) -> str:
    """A short name: that of the run where the folder is called export, else the folder's own."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "export" else folder.name


def load_export(given: Path, device: str = "cpu", batch_size: int = 64) -> LoadedExport:
    """Load an export in fp32.

    Raises:
        ValueError: no export, an unfinished one, one whose weights cannot be read or do not fill the model exactly, or
            one that does not give the reference picture's embedding (`cloc.export.reference`).
    """
    folder = find_export_folder(given)
    card = read_card(folder)
    # Sizes that differ are let through only to be refused below, in one message with the other kinds.
    how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with refusing_unreadable(folder):
        model, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, **how
        )
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    odd = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(odd.values()):
        listed = "; ".join(f"{kind.replace('_', ' ')}: {keys[:3]}" for kind, keys in odd.items() if keys)
        raise ValueError(f"{folder}: the weights do not fill the model exactly ({listed}); export it again")
    check_reference(card, model.eval(), processor.image_processor, folder)
    return LoadedExport(
        label=name_export(folder),
        sha256=card.get("model_sha256"),
        objective=model.config.objective,
        model=model.to(device).eval(),
        processor=processor,
        device=device,
        batch_size=batch_size,
    )


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
        for chunk in split_blocks(texts, TEXTS_A_FORWARD):
            tokens = self.processor(text=list(chunk), return_tensors="pt").to(self.device)
            parts.append(to_array(self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """(B, E), unit norm, of whole images. An empty list gives (0, E)."""
        parts = [np.zeros((0, self.model.config.vision_config.projection_dim), dtype=np.float32)]
        for chunk in split_blocks(images, self.loaded.batch_size):
            pixels = self.processor(images=list(chunk), return_tensors="pt")["pixel_values"]
            parts.append(to_array(self.model.get_image_features(pixels.to(self.device))))
        return np.concatenate(parts)

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """Refused: see `cannot_ground`."""
        raise ValueError(f"{self.name}: {self.cannot_ground}")

    def prepared(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> Iterator[dict[str, torch.Tensor]]:
        """Batches for the model: pixel_values (B, 3, S, S), boxes (B, K, 4) on the canvas and their mask (B, K)."""
        size = self.loaded.batch_size
        for part, boxes in zip(split_blocks(images, size), split_blocks(boxes_xyxy, size), strict=True):
            inputs = self.processor(images=list(part), boxes=list(boxes), return_tensors="pt")
            yield {name: inputs[name].to(self.device) for name in ("pixel_values", "boxes", "boxes_mask")}


def split_blocks(items: Sequence, size: int) -> Iterator[Sequence]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def to_array(tensor: torch.Tensor) -> Embeddings:
    """A tensor as float32 on the CPU."""
    return tensor.float().cpu().numpy()


def split_by_image(embeds: torch.Tensor, mask: torch.Tensor) -> list[Embeddings]:
    """(B, K, E) with a mask (B, K) to one (K, E) for each image, padding left out."""
    return [to_array(rows[kept]) for rows, kept in zip(embeds, mask, strict=True)]


class PrompterReadout(EncoderReadout):
    """Region embeddings from box prompts, boxes from phrase prompts."""

    name = "prompter"

    @property
    def cannot_ground(self) -> str | None:  # type: ignore[override]  # it is never set
        """RoI-Align takes no phrase prompts, so such an export has no box head."""
        return None if self.model.vision.box_head is not None else "this export was trained without a box head"

    @torch.inference_mode()
    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """See `Predictor.encode_regions`."""
        found: list[Embeddings] = []
        for batch in self.prepared(images, boxes_xyxy):
            embeds = self.model.get_region_features(batch["pixel_values"], batch["boxes"], batch["boxes_mask"])
            found += split_by_image(embeds, batch["boxes_mask"])
        return found

    @torch.inference_mode()
    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """See `Predictor.ground`."""
        distinct = sorted({phrase for asked in phrases for phrase in asked})
        row = {phrase: index for index, phrase in enumerate(distinct)}
        texts = torch.from_numpy(self.encode_texts(distinct))
        found: list[Boxes] = []
        size = self.loaded.batch_size
        for part, asked in zip(split_blocks(images, size), split_blocks(phrases, size), strict=True):
            widest = max(len(some) for some in asked)
            padded = torch.zeros(len(part), widest, texts.shape[1])
            for index, some in enumerate(asked):
                padded[index, : len(some)] = texts[[row[phrase] for phrase in some]]
            pixels = self.processor(images=list(part), return_tensors="pt")["pixel_values"].to(self.device)
            boxes = self.model.ground(pixels, padded.to(self.device))
            placed = self.processor.post_process_boxes(boxes, [(image.height, image.width) for image in part])
            found += [np.asarray(rows[: len(some)]) for rows, some in zip(placed, asked, strict=True)]
        return found
