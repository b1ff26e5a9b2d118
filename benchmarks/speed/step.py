"""What a training step with regions costs: beside the same model without them, and beside open_clip as it ships.

ViT-B/16 at 224 by `configs/cloc_vit_b16.yaml`; made-up pixels and texts, the same for all. Run by the task `speed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from benchmarks.speed.timing import describe_threads, find_ratio, make_cost_scores, take_in_turn
from benchmarks.tasks.contract import Score
from cloc.config import Config, load_config
from cloc.device import find_device
from cloc.plan.batch_shapes import Shapes
from cloc.plan.timed_step import StepSeconds, Trial, finish

RECIPE = "configs/cloc_vit_b16.yaml"
OVERRIDES: tuple[str, ...] = ()
"""Further fields of the recipe."""
THEIRS = "ViT-B-16"
"""open_clip's name of the same architecture."""
IMAGES = {"cpu": 8, "cuda": 256}
REPEATS = {"cpu": 3, "cuda": 20}
REGIONS = 4
"""M, on every image."""
CAPTION, PHRASE = 40, (2, 8)
"""Real tokens, to which begin and end come on top."""
ENDS = 2


def measure_step(split: str) -> list[Score]:
    """Ratios of the step with regions to both others, and its own seconds.

    Returns:
        `_passes` is forward and backward alone; without it the whole step, with clip and optimiser.
    """
    device = find_device()
    repeats = REPEATS[device]
    found = take_in_turn(make_works(device), repeats)
    whole = {name: [one.whole for one in seconds] for name, seconds in found.items()}
    passes = {name: [one.passes for one in seconds] for name, seconds in found.items()}
    figures = {
        "step_over_no_regions": find_ratio(whole["cloc"], whole["clip"]),
        "step_over_no_regions_passes": find_ratio(passes["cloc"], passes["clip"]),
        "step_over_open_clip": find_ratio(whole["cloc"], whole["open_clip"]),
        "step_over_open_clip_passes": find_ratio(passes["cloc"], passes["open_clip"]),
        "step_images_per_second": IMAGES[device] / float(np.median(whole["cloc"])),
    }
    protocol = (
        f"batch-{IMAGES[device]}/M-{REGIONS}/captions-{CAPTION}/phrases-{PHRASE[0]}-to-{PHRASE[1]}/filter/grounding/"
        f"open_clip-77-tokens/{find_precision(device)}/{device}/median-of-{repeats}-rounds/{describe_threads()}"
    )
    return make_cost_scores(split, protocol, figures, repeats)


def find_precision(device: str) -> str:
    """In which all three compute."""
    return "bf16" if device == "cuda" else "fp32"


def make_recipe(objective: str, device: str) -> Config:
    """The recipe with a batch of one device."""
    fields = [f"objective={objective}", f"run.device={device}", f"run.precision={find_precision(device)}"]
    return load_config(RECIPE, [*fields, f"data.0.batch_size={IMAGES[device]}", *OVERRIDES])


def make_works(device: str) -> dict[str, Callable[[], StepSeconds]]:
    """One step of each: `cloc`, `clip` (the same model without region terms, texts alike) and `open_clip`."""
    images, longest = IMAGES[device], PHRASE[1] + ENDS
    phrases = np.random.default_rng(0).integers(PHRASE[0] + ENDS, longest + 1, images * REGIONS)
    phrases[:2] = PHRASE[0] + ENDS, longest
    shapes = Shapes(images, CAPTION + ENDS, REGIONS, images * REGIONS, longest)
    ours = Trial.start(make_recipe("cloc", device), shapes, phrases.tolist())
    plain = Trial.start(make_recipe("clip", device), Shapes(images, CAPTION + ENDS, 0, 0, longest))
    theirs = open_clip_step(ours.batch.pixel_values, plain.batch.caption_ids, find_precision(device) == "bf16")
    return {"cloc": ours.step, "clip": plain.step, "open_clip": theirs}


def open_clip_model() -> torch.nn.Module:
    """Their model, from scratch."""
    import open_clip

    return open_clip.create_model(THEIRS, output_dict=True)


def open_clip_step(pixel_values: torch.Tensor, caption_ids: torch.Tensor, bf16: bool) -> Callable[[], StepSeconds]:
    """Their model, loss and optimiser as their training script sets them up, on the same images and captions.

    Args:
        pixel_values: (B, 3, S, S).
        caption_ids: (B, T); padded with zeros to their context, as their tokenizer does.
        bf16: under autocast.
    """
    import open_clip

    device = pixel_values.device
    model: Any = open_clip_model().to(device).train()
    loss = open_clip.ClipLoss()
    texts = torch.nn.functional.pad(caption_ids, (0, model.context_length - caption_ids.shape[1]))
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": matrices, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6)

    def step() -> StepSeconds:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            found = sum(loss(**model(pixel_values, texts), output_dict=True).values())
        found.backward()
        finish(device)
        passes = time.perf_counter() - start
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(100)))
        finish(device)
        return StepSeconds(passes, time.perf_counter() - start)

    return step
