"""Images and boxes to rows of vectors: each image is encoded once, whatever the number of its boxes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoModel, AutoProcessor

from cloc import command
from cloc.device import find_device
from cloc.embed.best_texts import BestTexts, read_texts
from cloc.embed.prompt_boxes import PromptBoxes, match, read_prompt_boxes
from cloc.embed.vector_file import VectorFile, check_ending, vector_schema
from cloc.export import find_newest_export, read_card
from cloc.export.reference import check_reference
from cloc.images import IMAGE_ENDINGS, ImageError, read_photo
from cloc.model_folders import refusing_unreadable
from cloc.models.modeling import ClocModel
from cloc.models.processing import ClocProcessor

NO_BOXES = PromptBoxes(np.zeros((0, 4)))


def find_images(paths: Sequence[str]) -> list[Path]:
    """Files as given, and the pictures below folders, sorted; each once.

    Raises:
        ValueError: a path does not exist, or there is no picture.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found.update(dict.fromkeys(sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)))
        elif path.is_file():
            found[path] = None
        else:
            raise ValueError(f"{path}: no such file or folder")
    if not found:
        raise ValueError(f"{', '.join(paths)}: no pictures there ({', '.join(IMAGE_ENDINGS)})")
    return list(found)


@torch.no_grad()
def embed_batch(
    model: ClocModel, processor: ClocProcessor, images: Sequence[Image.Image], boxes_xyxy: Sequence[np.ndarray] | None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Vectors of a few images, with one encoding of each.

    Args:
        model: in evaluation mode.
        processor: the export's own.
        images: B of them, RGB.
        boxes_xyxy: for each image (M, 4) in its pixels, ragged; None for image vectors alone.

    Returns:
        (B, E) of the images, and for each image (M, E) of its boxes; unit norm, fp32, on the CPU.
    """
    inputs = processor(images=list(images), boxes=boxes_xyxy)
    encoding = model.encode_image(inputs["pixel_values"].to(model.device))
    assert encoding.image_embeds is not None
    whole = encoding.image_embeds.float().cpu()
    if boxes_xyxy is None or not inputs["boxes_mask"].any():
        return whole, [whole[:0]] * len(images)
    regions = model.get_region_features(boxes=inputs["boxes"].to(model.device), encoding=encoding).float().cpu()
    return whole, [rows[mask] for rows, mask in zip(regions, inputs["boxes_mask"], strict=True)]


def rows_of(
    image: Path, own: PromptBoxes, whole: torch.Tensor, regions: torch.Tensor, texts: BestTexts | None
) -> Iterator[dict]:
    """The rows of one image, as `vector_schema` describes them."""
    named = texts.of if texts is not None else lambda vector: {}
    yield {"image": str(image), "kind": "image", **named(whole), "embedding": whole.numpy()}
    for place, (box, vector) in enumerate(zip(own.boxes_xyxy, regions, strict=True)):
        row = {"image": str(image), "kind": "region", "region": place, **named(vector), "embedding": vector.numpy()}
        row |= zip(("x0", "y0", "x1", "y1"), (float(v) for v in box), strict=True)
        if own.annotation_ids:
            row["annotation_id"] = own.annotation_ids[place]
        if own.categories:
            row["category"] = own.categories[place]
        yield row


def embed_part(
    model: ClocModel,
    processor: ClocProcessor,
    images: Sequence[Path],
    boxes: Mapping[Path, PromptBoxes] | None,
    texts: BestTexts | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of one batch of files, and the files that could not be read, with the reason.

    Raises:
        ValueError: boxes belong to another image.
    """
    skipped: dict[str, str] = {}
    pictures: dict[Path, Image.Image] = {}
    for path in images:
        own = NO_BOXES if boxes is None else boxes.get(path, NO_BOXES)
        try:
            pictures[path] = read_photo(path, own.size)
        except ImageError as error:
            if error.reason in ("other_size", "swapped_sides"):
                raise ValueError(f"boxes of {path}: {error}") from error
            skipped[str(path)] = str(error)
            continue
        own.check(str(path), *pictures[path].size)
    if not pictures:
        return [], skipped
    each = [NO_BOXES if boxes is None else boxes.get(path, NO_BOXES) for path in pictures]
    drawn = None if boxes is None else [own.boxes_xyxy for own in each]
    whole, regions = embed_batch(model, processor, list(pictures.values()), drawn)
    rows = [row for entry in zip(pictures, each, whole, regions, strict=True) for row in rows_of(*entry, texts)]
    return rows, skipped


def embed(options: argparse.Namespace) -> None:
    """Embed all images; goes on where an earlier call was stopped."""
    if options.batch_size < 1:
        raise ValueError(f"--batch-size: expected at least 1, got {options.batch_size}")
    check_ending(options.out)
    asked = None if options.texts is None else read_texts(options.texts)
    images = find_images(options.images)
    boxes, dropped = None, Counter[str]()
    if options.boxes is not None:
        read, dropped = read_prompt_boxes(options.boxes)
        boxes = match(read, images, options.boxes)
    folder = find_newest_export() if options.model is None else options.model
    card = read_card(folder)
    device = find_device(options.device)
    with refusing_unreadable(folder):
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    check_reference(card, model, processor.image_processor, folder)
    model.to(device)
    if boxes is not None and not model.has_prompter:
        raise ValueError(f"{folder}: no Prompter (objective clip), so it has no region vectors; leave --boxes out")
    source = {"model": str(folder), "model_sha256": card.get("model_sha256", ""), "version": card.get("version", "")}
    drawn = None
    if boxes is not None:
        drawn = [[str(p), b.boxes_xyxy.tolist(), b.annotation_ids, b.categories] for p, b in sorted(boxes.items())]
    call = {**source, "images": [str(path) for path in images], "boxes": drawn, "batch_size": options.batch_size}
    call["texts"] = asked and [options.best, *asked]
    texts = None if asked is None else BestTexts(model, processor, asked, options.best)
    schema = vector_schema(model.config.vision_config.projection_dim, source, texts is not None)
    file = VectorFile(options.out, schema, call)
    parts = [images[i : i + options.batch_size] for i in range(0, len(images), options.batch_size)]
    skipped: dict[str, str] = {}
    with file.lock:
        with tqdm(total=len(images), unit="image", disable=None) as bar:
            for number, part in enumerate(parts):
                if not file.has(number):
                    file.write(number, *embed_part(model, processor, part, boxes, texts))
                skipped |= file.skipped(number)
                bar.update(len(part))
        rows = file.finish(len(parts))
    print(command.printable(f"wrote {options.out}: {rows:,} vectors of {len(images) - len(skipped):,} images"))
    reasons = dropped + Counter(reason.partition(":")[0] for reason in skipped.values())
    if reasons:
        told_reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        print(
            command.printable(
                f"left out or cut, by reason: {told_reasons}" + (f"; first image: {min(skipped)}" if skipped else "")
            )
        )
