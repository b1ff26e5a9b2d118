"""An export for open_clip, as a folder with `open_clip_config.json` and safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cloc.images import CLIP_MEAN, CLIP_STD
from cloc.models.modeling import ClocModel
from cloc.models.temperature import MAX_LOG_SCALE
from cloc.tokenizer import clip_tokenizer
from cloc.towers.layouts import OPEN_CLIP_TEXT, OPEN_CLIP_VISION
from cloc.towers.sources import OPEN_CLIP_CONFIG

ACTIVATIONS = {"gelu": False, "quick_gelu": True}
"""What open_clip's own towers know, and whether it is its `quick_gelu`."""


def model_config(model: ClocModel) -> dict[str, Any]:
    """The `model_cfg` of open_clip that has the model's shape.

    Raises:
        ValueError: open_clip cannot hold the tower or the text tower.
    """
    vision, text = model.config.vision_config.tower, model.config.text_config
    if vision.model_type != "clip_vision_model":
        raise ValueError(
            f"--format open_clip: its ViT pools by CLS, the tower is a {vision.model_type}; use --format timm or "
            "transformers"
        )
    for name, side in (("vision", vision), ("text", text)):
        if side.hidden_act not in ACTIVATIONS or side.hidden_act != vision.hidden_act:
            raise ValueError(
                f"--format open_clip: expected one activation of {sorted(ACTIVATIONS)} for both towers, the {name} "
                f"tower has {side.hidden_act!r} and the vision tower {vision.hidden_act!r}; use --format transformers"
            )
    if text.eos_token_id != text.vocab_size - 1:
        raise ValueError("--format open_clip: it pools at the largest token id, which is not this tokenizer's end")
    return {
        "embed_dim": model.config.vision_config.projection_dim,
        "quick_gelu": ACTIVATIONS[vision.hidden_act],
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **_transformer(vision),
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            **_transformer(text),
        },
    }


def _transformer(config: PreTrainedConfig) -> dict[str, Any]:
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "norm_kwargs": {"eps": config.layer_norm_eps},
    }


def convert_to_open_clip(model: ClocModel) -> dict[str, torch.Tensor]:
    """Both towers, projections and the temperature of the image-text loss, by open_clip's names."""
    state = {k: v.detach() for k, v in model.state_dict().items()}
    vision = {k.removeprefix("vision.tower."): v for k, v in state.items() if k.startswith("vision.tower.")}
    vision["visual_projection.weight"] = state["vision.visual_projection.weight"]
    text = {k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")}
    text["text_projection.weight"] = state["text_projection.weight"]
    scale = state["logit_scale"].clamp(max=MAX_LOG_SCALE).reshape(())
    theirs = {**OPEN_CLIP_VISION.outward(vision), **OPEN_CLIP_TEXT.outward(text), "logit_scale": scale}
    return {k: v.contiguous().clone() for k, v in theirs.items()}


def write_open_clip(model: ClocModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> torch.nn.Module:
    """Write the folder and load it back with open_clip, which checks every key and shape.

    Images are padded with one grey by open_clip and with the mean colour by us; on equal pixels both give equal values.

    Returns:
        open_clip's model.

    Raises:
        ValueError: open_clip cannot hold a tower or the tokenizer.
    """
    config = model_config(model)
    if tokenizer.get_vocab() != clip_tokenizer().get_vocab():
        raise ValueError("--format open_clip: expected CLIP's own tokenizer, this export has another; use transformers")
    save_file(convert_to_open_clip(model), out / "open_clip_model.safetensors", metadata={"format": "pt"})
    preprocess = {
        "mean": list(CLIP_MEAN),
        "std": list(CLIP_STD),
        "interpolation": "bicubic",
        "resize_mode": "longest",
        "fill_color": round(255 * sum(CLIP_MEAN) / 3),
    }
    whole = {"model_cfg": config, "preprocess_cfg": preprocess}
    (out / OPEN_CLIP_CONFIG).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return open_clip.create_model(f"local-dir:{out}").eval()
