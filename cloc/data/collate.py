"""Samples in, one `Batch` out: decode, move image and boxes onto the canvas together, draw M regions, tokenise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from cloc.data.order import draw
from cloc.data.prompts import DrawnPrompts, PromptSampler, draw_prompts
from cloc.images import ImageError, Placement, decode, place, to_pixel_values
from cloc.structures import Batch, DataError, Sample
from cloc.text import canonical, text_id
from cloc.tokenizer import tokenise


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sample on the model's canvas.

    Attributes:
        key: the sample's key.
        pixel_values: (3, S, S) float32, normalised.
        caption: one caption, drawn where there are several; empty where there is none.
        boxes: (m, 4) float32 xyxy in [0, 1] of the canvas, m at most M.
        phrases: their m phrases.
        unique: (m,) whether the phrase stands for one region of its image only.
        dropped: regions left out, by reason.
        prompts: what the regions are asked with; None: all with their box.
    """

    key: str
    pixel_values: np.ndarray
    caption: str
    boxes: np.ndarray
    phrases: tuple[str, ...]
    unique: tuple[bool, ...]
    dropped: Counter[str]
    prompts: DrawnPrompts | None = None


def decode_sample(sample: Sample) -> Image.Image:
    """The RGB image of a sample, in the frame of its boxes.

    Raises:
        DataError: it cannot be decoded, or has another size than the sample says.
    """
    try:
        return decode(sample.image, (sample.width, sample.height))
    except ImageError as error:
        reason = "other_size" if error.reason in ("other_size", "swapped_sides") else "broken_image"
        raise DataError(reason, f"{sample.key}: {error}") from error


def draw_caption(sample: Sample, random: np.random.Generator) -> str:
    """One of the sample's captions; empty where there is none."""
    captions = [c for c in sample.extras.get("captions", ()) if canonical(c)] or [sample.caption]
    return captions[int(random.integers(len(captions)))]


def prepare(
    sample: Sample, image_size: int, max_regions: int, seed: int, epoch: int, prompts: PromptSampler | None = None
) -> Prepared:
    """Put one sample onto the canvas; every draw depends on (seed, epoch, sample key) alone.

    Args:
        sample: as read from a shard.
        image_size: S, side of the canvas in pixels.
        max_regions: M, regions drawn at random without replacement (CLOC 3.4); 0 for none.
        seed: the run's seed.
        epoch: how often the data has been seen.
        prompts: what regions are asked with; None: their box.

    Raises:
        DataError: the image cannot be decoded or has another size than the sample says.
    """
    image = decode_sample(sample)
    random = draw(seed, "sample", epoch, sample.key)
    caption = draw_caption(sample, random)
    often = Counter(canonical(region.phrase) for region in sample.regions)
    single = [i for i, region in enumerate(sample.regions) if not region.extras.get("crowd")]
    chosen = sorted(single[i] for i in random.permutation(len(single))[:max_regions])
    regions = [sample.regions[i] for i in chosen]
    drawn, dropped = None, sample.dropped
    if len(single) < len(sample.regions):
        dropped = dropped + Counter(crowd=len(sample.regions) - len(single))
    if prompts is not None:
        drawn, counts = draw_prompts(sample, chosen, prompts, image_size, seed, epoch)
        dropped = dropped + counts
    boxes = Placement(sample.width, sample.height).to_canvas([region.box for region in regions])
    return Prepared(
        sample.key,
        to_pixel_values(place(image, image_size)),
        caption,
        boxes.astype(np.float32),
        tuple(region.phrase for region in regions),
        tuple(often[canonical(region.phrase)] == 1 for region in regions),
        dropped,
        drawn,
    )


def collate(
    prepared: Sequence[Prepared],
    tokenizer: PreTrainedTokenizerBase,
    image_size: int,
    max_regions: int,
    skipped: Counter[str] | None = None,
    prompts: PromptSampler | None = None,
) -> Batch:
    """Stack prepared samples, made with the same `prompts`; equal phrases become one row, nothing an empty batch."""
    num = len(prepared)
    boxes = torch.zeros(num, max(max_regions, 1), 4)
    mask = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    for row, item in enumerate(prepared):
        boxes[row, : len(item.boxes)] = torch.from_numpy(item.boxes)
        mask[row, : len(item.boxes)] = True
    phrases = [canonical(phrase) for item in prepared for phrase in item.phrases]
    different = {phrase: row for row, phrase in enumerate(dict.fromkeys(phrases))}
    captioned = [row for row, item in enumerate(prepared) if canonical(item.caption)]
    caption_ids, caption_attention = tokenise(tokenizer, [prepared[row].caption for row in captioned])
    phrase_ids, phrase_attention = tokenise(tokenizer, list(different))
    counts = Counter(skipped or {})
    for item in prepared:
        counts.update(item.dropped)
    if len(captioned) < num:
        counts["no_caption"] += num - len(captioned)
    pixels = [torch.from_numpy(item.pixel_values) for item in prepared]
    return Batch(
        pixel_values=torch.stack(pixels) if pixels else torch.zeros(0, 3, image_size, image_size),
        caption_ids=caption_ids,
        caption_attention=caption_attention,
        caption_image=torch.tensor(captioned, dtype=torch.int64),
        boxes=boxes,
        boxes_mask=mask,
        phrase_ids=phrase_ids,
        phrase_attention=phrase_attention,
        phrase_of_region=torch.tensor([different[phrase] for phrase in phrases], dtype=torch.int64),
        phrase_text_id=torch.tensor([text_id(phrase) for phrase in different], dtype=torch.int64),
        unique_in_image=torch.tensor([unique for item in prepared for unique in item.unique], dtype=torch.bool),
        keys=tuple(item.key for item in prepared),
        skipped=counts,
        **({} if prompts is None else _stack_prompts(prepared, boxes.shape[1], prompts)),
    )


def _stack_prompts(prepared: Sequence[Prepared], most: int, settings: PromptSampler) -> dict[str, torch.Tensor]:
    stacked = {
        "prompt_kinds": torch.zeros(len(prepared), most, dtype=torch.int64),
        "prompt_coords": torch.zeros(len(prepared), most, 4),
        "prompt_patch_coverage": torch.zeros(len(prepared), most, *settings.grid),
    }
    for row, item in enumerate(prepared):
        assert item.prompts is not None
        for name, batch in stacked.items():
            values = getattr(item.prompts, name.removeprefix("prompt_"))
            batch[row, : len(values)] = torch.from_numpy(values)
    return stacked
