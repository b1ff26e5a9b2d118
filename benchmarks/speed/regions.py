"""What 100 boxes of one image cost, beside the image alone and beside one encoding a box.

A ViT-B/16 at 224 with random weights, since time does not depend on them. Run by the task `speed`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlavaImageProcessor

import cloc
from benchmarks.speed.timing import COST, describe_threads, find_ratio, take_in_turn, time_call
from benchmarks.tasks.contract import Score
from cloc.device import find_device
from cloc.scenes import WorldSpec, render_scene
from cloc.tokenizer import clip_tokenizer

BOXES = 100
REPEATS, ENCODE_REPEATS = 15, 1
"""Rounds; those with one encoding a box take as long as a hundred others."""
ENCODE_AT_ONCE = 25
"""Images a forward where each box has one of its own: kinder to it than one at a time."""
SCENE = 480
TOWER: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
EMBED = 512


@torch.inference_mode()
def measure_regions(split: str) -> list[Score]:
    """Ratios, the model alone and with preprocessing of a scene of `SCENE` pixels."""
    device = find_device()
    torch.manual_seed(0)
    tower = CLIPVisionConfig(**TOWER).to_dict()
    model = cloc.ClocVisionModel(cloc.ClocVisionConfig(tower=tower, projection_dim=EMBED)).eval().to(device)
    model_only = measure(model, device)
    ready = measure_with_preprocessing(model, device)
    figures = {
        "regions_over_image_alone": (find_ratio(model_only["regions"], model_only["alone"]), REPEATS),
        "regions_over_image_alone_with_preprocessing": (find_ratio(ready["regions"], ready["alone"]), REPEATS),
        "encode_a_box_over_regions": (encode_ratio(model, device), ENCODE_REPEATS),
    }
    protocol = f"{BOXES}-boxes/{TOWER['image_size']}px/fp32/{device}/median-of-rounds/{describe_threads()}"
    return [
        Score(split, protocol, name, value=value, num_examples=rounds, no_constant=COST)
        for name, (value, rounds) in figures.items()
    ]


def make_inputs(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 3, S, S) pixels and (1, 100, 4) boxes, xyxy in [0, 1] of the canvas."""
    corners = torch.rand(1, BOXES, 2) / 2
    pixels = torch.randn(1, 3, TOWER["image_size"], TOWER["image_size"])
    return pixels.to(device), torch.cat([corners, corners + 0.25], dim=-1).to(device)


def measure(model: cloc.ClocVisionModel, device: str) -> dict[str, list[float]]:
    """Seconds of the model alone: the image with its boxes, and the image."""
    pixels, boxes = make_inputs(device)
    works = {
        "alone": lambda: time_call(lambda: model(pixels).image_embeds.cpu()),
        "regions": lambda: time_call(lambda: model.get_region_features(pixels, boxes).cpu()),
    }
    return take_in_turn(works, REPEATS)


def measure_with_preprocessing(model: cloc.ClocVisionModel, device: str) -> dict[str, list[float]]:
    """The same from an image in memory on."""
    side = TOWER["image_size"]
    images = LlavaImageProcessor(
        do_pad=True, do_center_crop=False, size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor = cloc.ClocProcessor(images, clip_tokenizer())
    image: Image.Image = render_scene(WorldSpec(), 0, "val", SCENE).image
    corners = np.random.default_rng(0).uniform(0, SCENE / 2, (BOXES, 2))
    boxes_xyxy = np.concatenate([corners, corners + SCENE / 4], axis=1)

    def alone() -> None:
        model(processor(images=[image], return_tensors="pt")["pixel_values"].to(device)).image_embeds.cpu()

    def regions() -> None:
        inputs = processor(images=[image], boxes=[boxes_xyxy], return_tensors="pt").to(device)
        model.get_region_features(inputs["pixel_values"], inputs["boxes"], inputs["boxes_mask"]).cpu()

    return take_in_turn({"alone": lambda: time_call(alone), "regions": lambda: time_call(regions)}, REPEATS)


def encode_ratio(model: cloc.ClocVisionModel, device: str) -> float:
    """Seconds of one encoding for each of the boxes, over those of one encoding for all."""
    pixels, boxes = make_inputs(device)
    blocks = pixels.expand(BOXES, -1, -1, -1).contiguous().split(ENCODE_AT_ONCE)
    many, one = [], []
    for _ in range(ENCODE_REPEATS):
        one.append(time_call(lambda: model.get_region_features(pixels, boxes).cpu()))
        many.append(time_call(lambda: [model(block).image_embeds.cpu() for block in blocks]))
        one[-1] = (one[-1] + time_call(lambda: model.get_region_features(pixels, boxes).cpu())) / 2
    return find_ratio(many, one)
