"""What a tower is, found by a dry forward and not taken from its config's word.

Letters: B pictures, N tokens, C width, S image size, G tokens a side, p patch size (pixels).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig

from cloc.model_folders import UNREADABLE, in_one_line

GEOMETRY_FIELDS = ("do_convert_rgb", "do_resize", "size", "resample", "do_pad", "do_center_crop")
SCALE_FIELDS = ("do_rescale", "rescale_factor", "do_normalize")


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """A tower as a host sees it.

    Attributes:
        model_type: of its config, as `clip_vision_model`.
        width: channels of every hidden state.
        patch_size: pixels a side for each token of the last hidden state.
        image_size: side of the square input in pixels.
        extra_tokens: tokens before the patches, 1 with a CLS token, more with registers, else 0.
        hidden_states: how many there are, the embeddings included.
        usable: how many of them, from the last backwards, have the shape of the last: all, but for a tower of several
            resolutions.
        parameters: number of weights.
        mean, std: normalisation of the channels, for values in [0, 1].
        geometry: how an image gets on the canvas, in words.
    """

    model_type: str
    width: int
    patch_size: int
    image_size: int
    extra_tokens: int
    hidden_states: int
    usable: int
    parameters: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: str

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def kind(self) -> str:
        """`cls`, `plain` (no extra token), `registers` (several extra tokens), or `pyramid` (several resolutions)."""
        if self.usable < self.hidden_states:
            return "pyramid"
        return {0: "plain", 1: "cls"}.get(self.extra_tokens, "registers")

    def to_json(self) -> dict[str, Any]:
        """The facts as plain values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "patches": self.patches}

    def describe(self) -> str:
        """The facts on a few lines."""
        side = self.image_size // self.patch_size
        cls = {
            "cls": "a CLS token",
            "plain": "no CLS token",
            "registers": f"{self.extra_tokens} more tokens in front",
            "pyramid": f"no CLS token; {self.usable} of its hidden states have this resolution",
        }[self.kind]
        return (
            f"{self.model_type}, {self.parameters:,} weights, width {self.width}, {self.hidden_states} hidden states\n"
            f"{self.image_size} px in patches of {self.patch_size} px: {side} x {side} = {self.patches} tokens, {cls}\n"
            f"{self.geometry}; mean {_short(self.mean)}, std {_short(self.std)}"
        )


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def read_size(image_processor: Any, field: str) -> dict[str, int]:
    """A size field of an image processor as a plain dictionary without empty entries."""
    value = getattr(image_processor, field, None) or {}
    return {key: int(side) for key, side in dict(value).items() if side is not None}


def pads_to_square(image_processor: Any) -> bool:
    """Whether an image processor pads an image to a square and resizes that."""
    size = read_size(image_processor, "size")
    return bool(getattr(image_processor, "do_pad", None)) and list(size) == ["shortest_edge"]


def crops_borders(image_processor: Any) -> bool:
    """Whether an image processor takes something from the borders; from a padded square of its own size it does not."""
    if not getattr(image_processor, "do_center_crop", None):
        return False
    side = read_size(image_processor, "size").get("shortest_edge")
    whole = read_size(image_processor, "crop_size") == {"height": side, "width": side}
    return not (pads_to_square(image_processor) and whole)


def describe_geometry(image_processor: Any) -> str:
    """How an image processor brings an image on the canvas, in words."""
    size = read_size(image_processor, "size")
    steps = []
    if getattr(image_processor, "do_pad", None):
        colour = tuple(int(value * 255) for value in image_processor.image_mean)
        steps.append(f"padded to a square with colour {colour}")
    if getattr(image_processor, "do_resize", None):
        if "shortest_edge" in size:
            steps.append(f"shortest edge resized to {size['shortest_edge']} px")
        elif "height" in size:
            steps.append(f"resized to {size['height']} x {size['width']} px")
        else:
            steps.append(f"resized to {size}")
    if crops_borders(image_processor):
        crop = read_size(image_processor, "crop_size")
        steps.append(f"cropped at the centre to {crop.get('height')} x {crop.get('width')} px")
    return ", ".join(steps) or "passed on as it is"


def probe(tower: nn.Module, image_processor: Any, source: str) -> TowerFacts:
    """Run a tower once on small changes of one picture and say what it is.

    Args:
        tower: a transformers vision model in evaluation mode.
        image_processor: the processor that came with it.
        source: where it came from, for messages.

    Raises:
        ValueError: size and patch size do not fit each other, the processor makes another size, or the tokens are not
            the patches row by row after the extra tokens that the config names.
    """
    config = tower.config
    image_size, patch_size = _declared_sizes(config, source)
    pixel_values = _processed(image_processor, image_size, source)
    states = _states(tower, pixel_values, source)
    extra_tokens = _extra_tokens(config, states[0].shape[1], (image_size // patch_size) ** 2, source)
    _prove_order(tower, pixel_values, states[0], patch_size, extra_tokens, source)
    last = states[-1]
    side = math.isqrt(last.shape[1] - extra_tokens)
    if side * side != last.shape[1] - extra_tokens or image_size % side:
        raise ValueError(
            f"{source}: expected its last hidden state to be a square grid that divides {image_size} px, got "
            f"{last.shape[1]} tokens; a tower that pads its grid does not go in: use an image size that divides"
        )
    return TowerFacts(
        model_type=config.model_type,
        width=last.shape[2],
        patch_size=image_size // side,
        image_size=image_size,
        extra_tokens=extra_tokens,
        hidden_states=len(states),
        usable=sum(state.shape == last.shape for state in states),
        parameters=sum(weight.numel() for weight in tower.parameters()),
        mean=tuple(float(value) for value in image_processor.image_mean),
        std=tuple(float(value) for value in image_processor.image_std),
        geometry=describe_geometry(image_processor),
    )


def _extra_tokens(config: PreTrainedConfig, tokens: int, patches: int, source: str) -> int:
    registers = getattr(config, "num_register_tokens", 0) or 0
    if tokens - patches not in (0, 1, 1 + registers):
        raise ValueError(
            f"{source}: expected {patches} patch tokens with or without one CLS token"
            f"{f' and {registers} registers' if registers else ''}, got {tokens} tokens; its size or patch size is not "
            "what its config says"
        )
    return tokens - patches


def _declared_sizes(config: PreTrainedConfig, source: str) -> tuple[int, int]:
    """(S, p) of the config, which the forward passes then have to confirm."""
    image_size, patch_size = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(image_size, int) or not isinstance(patch_size, int):
        raise ValueError(
            f"{source}: expected one number each for image_size and patch_size in its config, "
            f"got {image_size!r} and {patch_size!r}"
        )
    if image_size % patch_size:
        raise ValueError(
            f"{source}: image size {image_size} does not divide by patch size {patch_size}, so "
            f"{image_size % patch_size} pixels a side would be dropped unseen; use an encoder whose size divides"
        )
    return image_size, patch_size


def _processed(image_processor: Any, image_size: int, source: str) -> torch.Tensor:
    """(1, 3, S, S) of the first picture; every picture has to come out in this size."""
    for name, picture in make_probe_images().items():
        made = _pixels(image_processor, picture, source)
        if tuple(made.shape) != (1, 3, image_size, image_size):
            raise ValueError(
                f"{source}: the tower takes {image_size} x {image_size} px, its processor makes "
                f"{tuple(made.shape[2:])} of the {name} picture ({describe_geometry(image_processor)}); set size, "
                "crop_size or do_pad in preprocessor_config.json"
            )
    return _pixels(image_processor, make_probe_images()["1:1"], source)


def _pixels(image_processor: Any, picture: Image.Image, source: str) -> torch.Tensor:
    try:
        return torch.as_tensor(image_processor(images=picture, return_tensors="pt")["pixel_values"])
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(
            f"{source}: its image processor fails on a picture ({in_one_line(error)}); look at preprocessor_config.json"
        ) from error


@torch.no_grad()
def _states(tower: nn.Module, pixel_values: torch.Tensor, source: str) -> tuple[torch.Tensor, ...]:
    weight = next(tower.parameters())
    outputs = tower(pixel_values.to(weight.device, weight.dtype), output_hidden_states=True, return_dict=True)
    states = outputs.hidden_states
    if not states or any(state.ndim != 3 for state in states):
        shapes = sorted({tuple(state.shape) for state in states or ()})
        raise ValueError(f"{source}: expected hidden states of shape (images, tokens, width), got {shapes}")
    return states


def _prove_order(
    tower: nn.Module, pixel_values: torch.Tensor, before: torch.Tensor, patch_size: int, extra_tokens: int, source: str
) -> None:
    """Change three patches of the image: just their tokens may change, and they sit row by row.

    No other way of reading the grid (by columns, mirrored, turned) has these three in the same places.
    """
    side = pixel_values.shape[-1] // patch_size
    changed, patches = pixel_values.clone(), sorted({(0, 0), (0, side - 1), (min(1, side - 1), 0)})
    for row, column in patches:
        changed[:, :, row * patch_size : (row + 1) * patch_size, column * patch_size : (column + 1) * patch_size] += 1.0
    moved = (_states(tower, changed, source)[0] != before).any(dim=2)[0].nonzero().flatten().tolist()
    expected = [extra_tokens + row * side + column for row, column in patches]
    if moved != expected:
        raise ValueError(
            f"{source}: changing the patches (row, column) {patches} should change the tokens {expected} and no other, "
            f"it changed {moved[:5]}; patch size {patch_size} or the order of the tokens is not what its config says"
        )


SIZES = {"1:1": (96, 96), "2:1": (160, 80), "1:3": (70, 210), "tiny": (7, 5), "large": (1600, 1200)}
"""(width, height) in pixels. The ratios other than 1:1 tell a crop from a padding."""


@lru_cache(maxsize=1)
def make_probe_images() -> dict[str, Image.Image]:
    """One RGB picture for each entry of `SIZES`: a colour ramp under noise, so that every row and column differs."""
    made = {}
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        noise = np.random.default_rng(seed).integers(0, 96, size=(height, width, 3))
        across = np.linspace(0, 159, width)[None, :, None]
        down = np.linspace(159, 0, height)[:, None, None]
        ramp = np.concatenate([across + 0 * down, 0 * across + down, (across + down) / 2], axis=2)
        made[name] = Image.fromarray((noise + ramp).astype(np.uint8), mode="RGB")
    return made
