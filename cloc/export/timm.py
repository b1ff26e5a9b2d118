"""A tower for timm, as a folder that `timm.create_model('local-dir:FOLDER')` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from transformers import PreTrainedConfig, PreTrainedModel

from cloc.images import CLIP_MEAN, CLIP_STD
from cloc.towers.layouts import TIMM_CLIP, TIMM_SIGLIP, convert_swin, split_siglip_pool
from cloc.towers.tower import feature_spec, image_side

CLIP_NAMES = {"gelu": "vit_base_patch16_clip_224", "quick_gelu": "vit_base_patch16_clip_quickgelu_224"}
SIGLIP_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}


def choose_timm_architecture(config: PreTrainedConfig) -> tuple[str, dict[str, Any]]:
    """Name and arguments of `timm.create_model` that have the tower's shape.

    Raises:
        ValueError: timm has no tower of that activation, norm or shape.
    """
    if config.model_type == "timm_wrapper":
        return config.architecture, dict(config.model_args or {})
    if config.model_type == "swin":
        if config.use_absolute_embeddings or config.hidden_act != "gelu":
            raise ValueError("--format timm: its Swin has GELU and no learned positions; use --format transformers")
        shape = {
            "patch_size": feature_spec(config)[0][0],
            "embed_dim": config.embed_dim,
            "depths": list(config.depths),
            "num_heads": list(config.num_heads),
            "window_size": config.window_size,
            "mlp_ratio": config.mlp_ratio,
            "strict_img_size": False,
        }
        return "swin_tiny_patch4_window7_224", {"img_size": config.image_size, **shape}
    shape = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "dynamic_img_size": True,
    }
    clip = config.model_type == "clip_vision_model"
    known, eps = (CLIP_NAMES, 1e-5) if clip else (SIGLIP_ACTIVATIONS, 1e-6)
    if config.hidden_act not in known or config.layer_norm_eps != eps:
        raise ValueError(
            f"--format timm: expected an activation of {sorted(known)} and norms with eps {eps}, the tower has "
            f"{config.hidden_act!r} and {config.layer_norm_eps}; use --format transformers"
        )
    if clip:
        return CLIP_NAMES[config.hidden_act], shape
    return "vit_base_patch16_siglip_224", {**shape, "act_layer": SIGLIP_ACTIVATIONS[config.hidden_act]}


def convert_to_timm(config: PreTrainedConfig, ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tower's weights by timm's names."""
    if config.model_type == "timm_wrapper":
        return {k.removeprefix("timm_model."): v for k, v in ours.items()}
    if config.model_type == "swin":
        return convert_swin(ours)
    if config.model_type == "clip_vision_model":
        return TIMM_CLIP.outward(ours)
    return {**TIMM_SIGLIP.outward(ours), **split_siglip_pool(ours)}


def write_timm(tower: PreTrainedModel, out: Path) -> torch.nn.Module:
    """Write the folder and load it back with timm, which checks every key and shape.

    Returns:
        timm's model, without a classifier.

    Raises:
        ValueError: timm has no tower of that shape.
    """
    name, arguments = choose_timm_architecture(tower.config)
    state = convert_to_timm(tower.config, {k: v.detach() for k, v in tower.state_dict().items()})
    state = {k: v.contiguous().clone() for k, v in state.items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    side = image_side(tower.config)
    data = {"input_size": [3, side, side], "fixed_input_size": False, "interpolation": "bicubic", "crop_pct": 1.0}
    data |= {"crop_mode": "border", "mean": list(CLIP_MEAN), "std": list(CLIP_STD), "num_classes": 0}
    whole = {
        "architecture": name,
        "num_classes": 0,
        "num_features": feature_spec(tower.config)[-1][1],
        "model_args": arguments,
        "pretrained_cfg": {"custom_load": False, "classifier": "head", **data},
    }
    (out / "config.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return timm.create_model(f"local-dir:{out}", pretrained=True).eval()
