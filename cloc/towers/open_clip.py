"""open_clip's towers: a tag, a checkpoint file, or a folder with `open_clip_config.json`, by transformers' names."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import nn
from transformers import CLIPTextConfig, CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig

from cloc.files import read_object
from cloc.towers.layouts import OPEN_CLIP_TEXT, OPEN_CLIP_VISION, Layout
from cloc.towers.sources import OPEN_CLIP_CONFIG, Source, Weights, describe_misfit
from cloc.towers.timm import fit_timm, make_timm_config

_VISION = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "norm_kwargs", "patch_dropout"}
_TIMM = {"timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_drop", "timm_drop_path"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs"}
_HARMLESS = {"hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "output_tokens"}
CLOSE = 1e-4
"""Largest difference between open_clip's last tokens and CLIP's, which add in another order."""
_FILES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")


def read_model_config(source: Source) -> dict[str, Any]:
    """The `model_cfg` of open_clip: embed_dim, vision_cfg, text_cfg, quick_gelu.

    Raises:
        ValueError: open_clip has no such architecture or tag, or the folder's config cannot be read.
    """
    if not source.weights:
        file = Path(source.name) / OPEN_CLIP_CONFIG
        try:
            return read_object(file, "open_clip's config")["model_cfg"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"starting weights {source.text}: {file} has no model_cfg ({error})") from error
    config = open_clip.get_model_config(source.name)
    if config is None:
        raise ValueError(
            f"starting weights {source.text}: open_clip has no architecture {source.name!r}; "
            "python -c 'import open_clip; print(open_clip.list_models())' lists them"
        )
    tag = get_pretrained_cfg(source.name, source.weights)
    if not tag and not Path(source.weights).is_file():
        known = ", ".join(open_clip.list_pretrained_tags_by_model(source.name)) or "none"
        raise ValueError(f"starting weights {source.text}: {source.weights!r} is no file and no tag; tags: {known}")
    return {**config, "quick_gelu": config.get("quick_gelu", False) or tag.get("quick_gelu", False)}


def make_vision_config(
    source: Source, image_size: int | None, arguments: Mapping[str, Any] | None = None
) -> PreTrainedConfig:
    """The tower's config: `clip_vision_model`, or `timm_wrapper` where open_clip uses timm, made with `arguments`.

    Raises:
        ValueError: it is a tower that neither can hold.
    """
    whole = read_model_config(source)
    vision = whole["vision_cfg"]
    side = image_size or vision.get("image_size", 224)
    if vision.get("timm_model_name"):
        _refuse_others(source, vision, _TIMM | {"image_size"})
        pool = vision.get("timm_pool")
        pooled = {"global_pool": pool} if pool else {}
        return make_timm_config(vision["timm_model_name"], side, {**pooled, **(arguments or {})})
    _refuse_others(source, vision, _VISION)
    width, layers = vision.get("width", 768), vision.get("layers", 12)
    if not isinstance(layers, int):
        raise ValueError(f"starting weights {source.text}: expected a ViT, got open_clip's ResNet")
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=int(width * vision.get("mlp_ratio", 4.0)),
        num_hidden_layers=layers,
        num_attention_heads=width // vision.get("head_width", 64),
        image_size=side,
        patch_size=vision.get("patch_size", 16),
        hidden_act=_activation(whole),
        layer_norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
    )


def make_text_config(source: Source) -> PreTrainedConfig:
    """The text tower's config.

    Raises:
        ValueError: it is no CLIP text transformer.
    """
    whole = read_model_config(source)
    text = {k: v for k, v in whole["text_cfg"].items() if not (k == "pool_type" and v == "argmax")}
    _refuse_others(source, text, _TEXT | _HARMLESS)
    width, size = text.get("width", 512), text.get("vocab_size", 49408)
    return CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=int(width * text.get("mlp_ratio", 4.0)),
        num_hidden_layers=text.get("layers", 12),
        num_attention_heads=text.get("heads", 8),
        max_position_embeddings=text.get("context_length", 77),
        hidden_act=_activation(whole),
        layer_norm_eps=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )


def _activation(whole: Mapping[str, Any]) -> str:
    return "quick_gelu" if whole.get("quick_gelu") else "gelu"


def _refuse_others(source: Source, given: Mapping[str, Any], known: set[str]) -> None:
    others = sorted(k for k, v in given.items() if k not in known and v not in (None, False))
    if others:
        raise ValueError(
            f"starting weights {source.text}: its {', '.join(others)} has no counterpart in transformers' CLIP; "
            "use another architecture, or its timm tower by timm:NAME"
        )


def read_state(source: Source) -> dict[str, torch.Tensor]:
    """All weights by open_clip's names; unpickled, where it is no safetensors, by torch's restricted loader alone.

    Raises:
        ValueError: there is no file, or it is no plain state.
    """
    if source.weights:
        tag = get_pretrained_cfg(source.name, source.weights)
        file = download_pretrained(tag) if tag and not Path(source.weights).is_file() else source.weights
    else:
        there = [Path(source.name) / name for name in _FILES if (Path(source.name) / name).is_file()]
        if not there:
            raise ValueError(f"starting weights {source.text}: expected one of {', '.join(_FILES)} in the folder")
        file = str(there[0])
    try:
        return load_state_dict(file)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"starting weights {source.text}: {file} holds no plain state of tensors "
            f"({str(error).splitlines()[0]}); save it as safetensors"
        ) from error


def read_normalisation(source: Source) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and deviation of the images that the weights were trained on, where open_clip says so."""
    if source.weights:
        config: Mapping[str, Any] = get_pretrained_cfg(source.name, source.weights) or {}
    else:
        file = Path(source.name) / OPEN_CLIP_CONFIG
        config = read_object(file, "open_clip's config").get("preprocess_cfg") or {}
    return (config["mean"], config["std"]) if "mean" in config and "std" in config else None


def read_vision_weights(source: Source, config: PreTrainedConfig) -> Weights:
    """The image side in transformers' names; `config` as `make_vision_config` gives it.

    Raises:
        ValueError: the weights are those of another architecture; the keys are named.
    """
    theirs = read_state(source)
    if config.model_type == "timm_wrapper":
        trunk = {k.removeprefix("visual.trunk."): v for k, v in theirs.items() if k.startswith("visual.trunk.")}
        found = fit_timm(trunk, config, source.text)
        projection = theirs.get("visual.head.proj.weight")
        taken = {"visual.head.proj.weight"} | {f"visual.trunk.{k}" for k in trunk}
    else:
        state, taken = _inward(OPEN_CLIP_VISION, theirs, source, config.num_hidden_layers, "visual_projection.weight")
        projection = state.pop("visual_projection.weight")
        found = Weights(state)
    shared = {} if projection is None else {"vision.visual_projection.weight": projection}
    rest = sorted(k for k in theirs if k not in taken)
    return Weights(found.state, shared, {**found.left_over, "not part of this tower": rest})


def read_text_weights(source: Source) -> Weights:
    """The text side in transformers' names, with temperature and projection.

    Raises:
        ValueError: the weights are those of another architecture; the keys are named.
    """
    theirs = {k.removeprefix("text."): v for k, v in read_state(source).items()}
    layers = read_model_config(source)["text_cfg"].get("layers", 12)
    state, taken = _inward(OPEN_CLIP_TEXT, theirs, source, layers, "text_projection.weight")
    shared = {"text_projection.weight": state.pop("text_projection.weight"), **_temperature(theirs)}
    rest = sorted(k for k in theirs if k not in taken and k != "logit_scale")
    return Weights(state, shared, {"not part of this tower": rest})


def _temperature(theirs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"logit_scale": theirs["logit_scale"].reshape(1)} if "logit_scale" in theirs else {}


def _inward(
    layout: Layout, theirs: Mapping[str, torch.Tensor], source: Source, layers: int, projection: str
) -> tuple[dict[str, torch.Tensor], set[str]]:
    state, taken = layout.inward(theirs)
    blocks = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")}
    gone = sorted(set(layout.outer.values()) - set(state))
    if gone or projection not in state:
        raise ValueError(f"{source.text}: {len(gone)} weights are missing (first: {gone[0]})")
    if blocks != set(range(layers)):
        pairs = [(layout.blocks, (len(blocks),), (layers,))]
        raise ValueError(describe_misfit(source.text, pairs))
    return state, taken


def convert_to_clip(visual: nn.Module, asked: str) -> CLIPVisionModel:
    """A ViT of open_clip as transformers' CLIP tower; both are run and have to agree.

    Raises:
        ValueError: it is no such ViT, or the two differ.
    """
    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        raise ValueError(
            f"encoder: {asked}: its tower is a {type(visual).__name__} and not open_clip's own ViT; if timm has it, "
            "pass timm:ARCH:FILE"
        )
    named = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    state, taken = OPEN_CLIP_VISION.inward(named)
    state.pop("visual_projection.weight", None)
    block = visual.transformer.resblocks[0]
    config = CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels,
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=len(visual.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        hidden_act="quick_gelu" if isinstance(block.mlp.gelu, open_clip.transformer.QuickGELU) else "gelu",
        layer_norm_eps=block.ln_1.eps,
    )
    tower = CLIPVisionModel(config).eval()
    lost, left = tower.load_state_dict(state, strict=False)
    left += [name.removeprefix("visual.") for name in named if name not in taken]
    lost = [key for key in lost if not key.endswith("position_ids")]
    if lost or left:
        raise ValueError(f"encoder: {asked}: its tower is no plain CLIP ViT (missing {lost[:3]}, left over {left[:3]})")
    pixels = torch.randn(1, 3, *visual.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = visual.forward_intermediates(pixels, output_fmt="NLC")["image_intermediates"]
        ours = tower(pixels, output_hidden_states=True).hidden_states[1:]
    apart = max(float((a - b[:, 1:]).abs().max()) for a, b in zip(theirs, ours, strict=True))
    if apart > CLOSE * max(1.0, float(ours[-1].abs().max())):
        raise ValueError(
            f"encoder: {asked}: as a CLIP tower it gives other features than in open_clip (by {apart:.3g})"
        )
    return tower
