"""Batches of noise with the shapes of a recipe's: for measuring, not for learning.

Letters: B images, M prompts an image, R boxes of all images, U phrases or concepts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from cloc.plan.batch_shapes import ConceptShapes, Shapes
from cloc.structures import PROMPT_KINDS, Batch, ConceptBatch


def made_up_batch(shapes: Shapes, side: int, eos: int, phrase_tokens: Sequence[int] | None = None) -> Batch:
    """A batch of the given shapes: noise, and texts that end at their last real token.

    Args:
        shapes: B, M, U and T.
        side: of the images in pixels.
        eos: the token that ends a text, and pads it.
        phrase_tokens: (U,) as in `Trial.start`, each between 2 and the T of the phrases.
    """
    prompts, regions = max(shapes.prompts, 1), shapes.images * shapes.prompts
    phrases = shapes.phrases if regions else 0
    corners = torch.rand(shapes.images, prompts, 2) / 2
    captions = torch.randint(1, 300, (shapes.images, shapes.caption_tokens))
    captions[:, -1] = eos
    ids = torch.randint(1, 300, (phrases, shapes.phrase_tokens))
    lengths = torch.full((phrases,), shapes.phrase_tokens)
    if phrase_tokens is not None and phrases:
        lengths = torch.tensor(phrase_tokens)
    places = torch.arange(shapes.phrase_tokens)[None, :]
    ids[places >= lengths[:, None] - 1] = eos
    return Batch(
        pixel_values=torch.randn(shapes.images, 3, side, side),
        caption_ids=captions,
        caption_attention=torch.ones_like(captions),
        caption_image=torch.arange(shapes.images),
        boxes=torch.cat([corners, corners + 0.3], dim=-1),
        boxes_mask=torch.full((shapes.images, prompts), regions > 0),
        phrase_ids=ids,
        phrase_attention=(places < lengths[:, None]).long(),
        phrase_of_region=torch.arange(regions) % max(phrases, 1),
        phrase_text_id=torch.arange(phrases),
        unique_in_image=torch.ones(regions, dtype=torch.bool),
    )


def asked_with(batch: Batch, kinds: Sequence[str], grid: tuple[int, int]) -> Batch:
    """The same regions, asked with each kind of prompt in turn; a mask covers the whole image.

    Args:
        batch: asked with boxes.
        kinds: of `PROMPT_KINDS`.
        grid: rows and columns of patches.
    """
    rows = torch.tensor([PROMPT_KINDS.index(kind) for kind in kinds])
    asked = rows[torch.arange(batch.boxes_mask.numel()) % len(rows)].view(batch.boxes_mask.shape)
    cover = (asked == PROMPT_KINDS.index("mask"))[..., None, None].float().expand(*asked.shape, *grid).contiguous()
    return replace(batch, prompt_kinds=asked, prompt_coords=batch.boxes.clone(), prompt_patch_coverage=cover)


def made_up_concepts(shapes: ConceptShapes, eos: int) -> ConceptBatch:
    """A batch of one kind of detection training; the texts of pairs are dealt out to the images in equal shares.

    Args:
        shapes: of the batch.
        eos: the token that ends a text.
    """
    each = -(-shapes.boxes // shapes.images)
    mask = (torch.arange(shapes.images * max(each, 1)) < shapes.boxes).view(shapes.images, -1)
    corners = torch.rand(*mask.shape, 2) * 0.6
    labels = torch.arange(shapes.boxes)
    paired = torch.arange(shapes.concepts if shapes.kind == "pairs" else 0)
    captions = torch.randint(1, 300, (shapes.images if shapes.caption_tokens else 0, max(shapes.caption_tokens, 2)))
    concepts = torch.randint(1, 300, (shapes.concepts, shapes.concept_tokens))
    for ids in (captions, concepts):
        ids[:, -1] = eos
    return ConceptBatch(
        kind=shapes.kind,
        pixel_values=torch.randn(shapes.images, 3, shapes.height, shapes.width),
        extent=torch.ones(shapes.images, 2),
        boxes=torch.cat([corners, corners + 0.1 + 0.3 * torch.rand(*mask.shape, 2)], dim=2) * mask.unsqueeze(2),
        boxes_mask=mask,
        label_box=labels,
        label_concept=labels % shapes.concepts,
        concept_ids=concepts,
        concept_attention=torch.ones_like(concepts),
        concept_text_id=torch.arange(shapes.concepts),
        pair_image=paired * shapes.images // max(len(paired), 1),
        pair_concept=paired,
        caption_ids=captions,
        caption_attention=torch.ones_like(captions),
        caption_image=torch.arange(len(captions)),
    )
