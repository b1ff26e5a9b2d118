"""What the kit asks of a vision tower: patch tokens before the final norm, one pooled vector, and maps for detection.

Known towers: transformers' CLIP and SigLIP (a fixed-size SigLIP2 is one) and Swin, and any timm ViT or Swin inside
transformers' `timm_wrapper`. Letters: B images, N patch tokens, D width, C channels, H and W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from cloc.towers.timm import find_timm_facts

PREFIX_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""The plain ViTs, and how many tokens stand before the patches (1 where there is a CLS token)."""
TOWERS = (*PREFIX_TOKENS, "swin", "timm_wrapper")
"""Every `model_type` that can be a tower."""


def check_tower(config: PreTrainedConfig) -> None:
    """Refuse a tower of an unknown kind, or one whose image does not divide into patches.

    Raises:
        ValueError: the kind is unknown, the image is no square, or its side is no multiple of the largest stride.
    """
    if config.model_type not in TOWERS:
        hint = "; of SigLIP2 only the checkpoints of a fixed size are such" if "siglip2" in config.model_type else ""
        raise ValueError(f"vision tower: expected one of {sorted(TOWERS)}, got {config.model_type!r}{hint}")
    side, stride = image_side(config), feature_spec(config)[-1][0]
    if side % stride:
        name = "patch_size" if config.model_type in PREFIX_TOKENS else "stride"
        raise ValueError(
            f"vision tower: image_size {side} is not a multiple of {name} {stride}; "
            f"use {max(side // stride, 1) * stride} or another {'patch_size' if name == 'patch_size' else 'tower'}"
        )


def image_side(config: PreTrainedConfig) -> int:
    """Side in pixels of the square image that the tower was made for."""
    if config.model_type == "timm_wrapper":
        return find_timm_facts(config).image_size
    return _one_number(config.image_size, "image_size")


def patch_grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Rows and columns of the patch tokens that `encode` gives; of a Swin those of its last stage."""
    side = image_side(config) // feature_spec(config)[-1][0]
    return side, side


def tower_width(config: PreTrainedConfig) -> int:
    """D, the width of patch tokens and pooled vector; of a Swin that of its last stage."""
    return feature_spec(config)[-1][1]


def feature_spec(config: PreTrainedConfig) -> tuple[tuple[int, int], ...]:
    """(stride in pixels, channels) of each map of `feature_maps`, from fine to coarse."""
    if config.model_type == "timm_wrapper":
        return find_timm_facts(config).spec
    patch = _one_number(config.patch_size, "patch_size")
    if config.model_type == "swin":
        return tuple((patch * 2**stage, config.embed_dim * 2**stage) for stage in range(len(config.depths)))
    return ((patch, config.hidden_size),)


def canvas_divisor(config: PreTrainedConfig, strides: Sequence[int]) -> int:
    """The sides of a detection canvas are multiples of this: the tower's largest stride, and the levels' up to 32."""
    return max(feature_spec(config)[-1][0], max((s for s in strides if s <= 32), default=1))


def encode(tower: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the tower once on (B, 3, S, S) normalised images of its own size.

    Returns:
        (B, N, D) patch tokens of the last layer, row by row, before the tower's final norm and without CLS, and (B, D)
        its pooled vector (CLIP: normed CLS; SigLIP: attention pool; Swin: mean of normed tokens; timm: its own pool).
    """
    kind = tower.config.model_type
    if kind == "clip_vision_model":
        # CLIP norms CLS only, so its last_hidden_state is not normed yet.
        outputs = tower(pixel_values=pixel_values)
        return outputs.last_hidden_state[:, 1:], outputs.pooler_output
    if kind == "siglip_vision_model":
        outputs = tower(pixel_values=pixel_values, output_hidden_states=True)
        return outputs.hidden_states[-1], outputs.pooler_output
    maps, pooled = _swin(tower, pixel_values) if kind == "swin" else _timm(tower, pixel_values)
    return maps[-1].flatten(2).transpose(1, 2), pooled


def feature_maps(tower: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tower as a detector's backbone, on images of any height and width.

    A Swin gives the output of each of its stages before the next merging; a plain ViT one map, the patch tokens of its
    last layer. All are taken before the tower's final norm. A ViT's learned positions are interpolated to the image's
    grid by its own library (bicubic; CLIP, SigLIP and timm), in the forward pass, so gradients reach them.

    Args:
        tower: a transformers vision model, see `TOWERS`.
        pixel_values: (B, 3, H, W) normalised; H and W multiples of the largest stride in `feature_spec`.

    Returns:
        Maps (B, C, H / stride, W / stride), from fine to coarse, as `feature_spec` lists them.

    Raises:
        ValueError: H or W is no multiple of the largest stride, or a timm tower was made for one size only.
    """
    stride, width = feature_spec(tower.config)[-1]
    height, across = pixel_values.shape[-2:]
    if height % stride or across % stride or not height * across:
        wanted = " x ".join(str(max(-(-side // stride), 1) * stride) for side in (height, across))
        raise ValueError(
            f"feature_maps: expected height and width that are multiples of {stride}, got {height} x {across}; "
            f"pad the images to {wanted}"
        )
    if len(pixel_values) == 0:  # a rank without an image still owes its parameters a (zero) gradient
        return tuple(one[:0] for one in feature_maps(tower, pixel_values.new_zeros(1, *pixel_values.shape[1:])))
    if tower.config.model_type == "swin":
        return _swin(tower, pixel_values)[0]
    if tower.config.model_type == "timm_wrapper":
        facts, native = find_timm_facts(tower.config), image_side(tower.config)
        if not facts.any_size and (height, across) != (native, native):
            raise ValueError(
                f"feature_maps: timm's {tower.config.architecture} was made for {native} x {native} only, got "
                f"{height} x {across}; make it with model_args {facts.any_size_argument}=... set for any size"
            )
        return _timm(tower, pixel_values)[0]
    outputs = tower(pixel_values=pixel_values, output_hidden_states=True, interpolate_pos_encoding=True)
    tokens = outputs.hidden_states[-1][:, PREFIX_TOKENS[tower.config.model_type] :]
    rows_columns = (height // stride, across // stride)
    return (tokens.transpose(1, 2).reshape(len(pixel_values), width, *rows_columns),)


def _swin(tower: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    _keep_windows(tower)
    outputs = tower(
        pixel_values=pixel_values,
        output_hidden_states=True,
        output_hidden_states_before_downsampling=True,
        always_partition=True,
        interpolate_pos_encoding=True,
    )
    return outputs.reshaped_hidden_states[1:], outputs.pooler_output


def _keep_windows(tower: PreTrainedModel) -> None:
    """Make a Swin's windows a function of the image's size alone.

    The library's layers shrink window and shift for good at the first small image, so an answer would depend on the
    images before it, and a window below the configured one no longer fits the position table. Here each call sets both:
    the configured window always (smaller grids are padded to it), the shift only where the grid is larger than it.
    """
    if getattr(tower, "_windows_kept", False):
        return
    window = tower.config.window_size
    for stage in tower.encoder.layers:
        for index, layer in enumerate(stage.blocks):
            # A hook and not a loop before the forward: recomputation under checkpointing must see the same values.
            layer.register_forward_pre_hook(partial(_set_window, window=window, shift=index % 2 * (window // 2)))
    tower._windows_kept = True


def _set_window(layer: nn.Module, inputs: tuple, *, window: int, shift: int) -> None:
    layer.window_size = window
    layer.shift_size = shift if min(inputs[1]) > window else 0


def _timm(tower: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    facts = find_timm_facts(tower.config)
    outputs = tower(
        pixel_values, output_hidden_states=list(facts.indices), do_pooling=True, norm=False, output_fmt="NCHW"
    )
    return tuple(outputs.hidden_states), outputs.pooler_output


def _one_number(size: int | list[int] | tuple[int, ...], name: str) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"vision tower: expected a square {name}, got {size}")
    return sides.pop()
