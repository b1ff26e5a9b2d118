"""One training step on fake tensors: what it computes and the most memory it holds, for models of any size.

Nothing is computed and nothing is stored, so a ViT-H on a laptop takes seconds. Regions are taken as if every image had
all of its prompts, since fake masks cannot be read.

Letters: B images of a device, T tokens, M prompts an image, U phrases, E shared embedding.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from cloc.losses.grounding import grounding
from cloc.losses.pairs import Form, contrast_pairs
from cloc.models.configuration import ClocConfig
from cloc.models.modeling import ClocModel
from cloc.models.packing import can_pack, lay
from cloc.models.tower import image_side
from cloc.planning.peak import PeakMemory
from cloc.stepper import switches

ROWS_OF_THE_LOSS = 4096
"""Beyond so many rows the contrast is left out of the dry step: its tiles add little and would take minutes."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What one device gets for one forward pass.

    Attributes:
        images: B.
        caption_tokens: T of the captions, padded to the longest of the batch.
        prompts: M box prompts an image; 0 without a Prompter.
        phrases: U different phrases.
        phrase_tokens: T of the phrases.
    """

    images: int
    caption_tokens: int
    prompts: int
    phrases: int
    phrase_tokens: int


@dataclass(frozen=True, slots=True)
class DryStep:
    """What a step costs one device.

    Attributes:
        parameters: of each part.
        forward_flops, flops: of the forward pass, and of forward and backward, for the whole batch (a multiply-add is
            two), without the contrast's own matrices.
        weights: bytes of the parameters; the gradients take as much.
        working: the most bytes that activations, gradients and what is in between take at once, beside the weights.
    """

    parameters: dict[str, int]
    forward_flops: int
    flops: int
    weights: int
    working: int


def dry_step(config: ClocConfig, shapes: Shapes, form: Form, bf16: bool, recompute: bool, attention: str) -> DryStep:
    """Forward and backward of a fresh model on fake tensors of the CPU."""
    with FakeTensorMode():
        model = ClocModel(config)
        switches.set_attention(model, attention if attention != "flash_attention_2" else "sdpa", bf16)
        if recompute:
            switches.checkpoint_activations(model)
        parameters = tuple(model.parameters())
        weights = sum(p.numel() * p.element_size() for p in parameters)
        side = image_side(config.vision_config.tower)
        pixels = torch.zeros(shapes.images, 3, side, side)
        captions = torch.zeros(shapes.images, shapes.caption_tokens, dtype=torch.int64)
        phrases = torch.zeros(shapes.phrases, shapes.phrase_tokens, dtype=torch.int64)
        with PeakMemory((*parameters, pixels, captions, phrases)) as memory:
            features = _features(model, pixels, captions, phrases, shapes, bf16)
            _loss(model, features, form).backward()
        # Apart from the other pass: the counter's hooks keep alive what recomputation gives back.
        with FlopCounterMode(display=False) as counter:
            features = _features(model, pixels, captions, phrases, shapes, bf16)
            forward = counter.get_total_flops()
            _loss(model, features, form).backward()
    return DryStep(_parts(model), forward, counter.get_total_flops(), weights, memory.peak - weights)


def _features(
    model: ClocModel, pixels: torch.Tensor, captions: torch.Tensor, phrases: torch.Tensor, shapes: Shapes, bf16: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of rows and texts, as in the model's own forward pass; the last pair are boxes."""
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        return _pairs(model, pixels, captions, phrases, shapes)


def _pairs(
    model: ClocModel, pixels: torch.Tensor, captions: torch.Tensor, phrases: torch.Tensor, shapes: Shapes
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    encoded = model.vision(pixels)
    regions_too = bool(shapes.prompts) and model.has_prompter
    asked, *others = _text_features(model, [captions, phrases] if regions_too else [captions])
    pairs = [(encoded.image_embeds, asked)]
    if not regions_too:
        return pairs
    prompter = model.vision.prompter
    image, texts = model.vision.prompter_tokens(encoded), others[0]
    boxes = torch.zeros(shapes.images, shapes.prompts, 4)
    regions = prompter.project(prompter(prompter.box_tokens(boxes), image)).flatten(0, 1)
    rows = torch.arange(len(regions)) % len(texts)
    asked = texts[rows]
    if model.vision.box_head is None:
        return [*pairs, (regions, asked)]
    grounded = model.vision.box_head(
        prompter(prompter.phrase_tokens(asked.view(shapes.images, -1, asked.shape[1])), image)
    )
    return [*pairs, (regions, asked), (grounded.flatten(0, 1), boxes.flatten(0, 1))]


def _text_features(model: ClocModel, groups: list[torch.Tensor]) -> list[torch.Tensor]:
    """As `ClocModel.get_texts_features`, which reads where texts end; here all are full."""
    if not can_pack(model.text):
        return [model.get_text_features(ids) for ids in groups]
    sizes, lengths = [len(ids) for ids in groups], [ids.shape[1] for ids in groups for _ in range(len(ids))]
    rows = lay(torch.cat([ids.flatten() for ids in groups]), lengths, model.text.config.eos_token_id)
    return list(model.get_packed_features(rows).split(sizes))


def _loss(model: ClocModel, features: list[tuple[torch.Tensor, torch.Tensor]], form: Form) -> torch.Tensor:
    image_scale, region_scale = model.scales()
    total = torch.zeros(())
    for number, ((rows, texts), scale) in enumerate(zip(features[:2], (image_scale, region_scale), strict=False)):
        if len(rows) > ROWS_OF_THE_LOSS:
            total = total + rows.float().sum() + texts.float().sum() + scale
            continue
        ids = torch.zeros(len(rows), dtype=torch.int64) if number else None
        softmax = Form("softmax", form.chunk)  # as large as the sigmoid form
        total = total + contrast_pairs(softmax, rows, texts, scale, None, ids, 0.9 if number else None).loss
    return total + grounding(*features[2])[0] if len(features) > 2 else total


def _parts(model: ClocModel) -> dict[str, int]:
    parts: dict[str, nn.Module | None] = {
        "vision tower": model.vision.tower,
        "text tower": model.text,
        "Prompter": model.vision.prompter,
        "box head": model.vision.box_head,
    }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
    rest = sum(p.numel() for p in model.parameters()) - sum(counts.values())
    return {**counts, "projections and scales": rest}
