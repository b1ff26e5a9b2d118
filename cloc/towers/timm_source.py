"""Towers and starting weights from timm."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from transformers import PreTrainedConfig, TimmWrapperConfig

from cloc.towers.sources import Source, Weights, misfit
from cloc.towers.timm_facts import any_size_argument, meta_model

PREFIX = "timm_model."
"""Where transformers' wrapper keeps a timm model."""


def timm_config(name: str, image_size: int | None, arguments: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """The config of a timm ViT or Swin that takes images of any size and, unless asked to, drops nothing at random.

    Args:
        name: architecture, with or without the tag of its weights (`vit_base_patch16_clip_224.openai`).
        image_size: side in pixels; None for the size of the weights, else of the architecture.
        arguments: for `timm.create_model`, such as `{"depth": 6}`.

    Raises:
        ValueError: timm has no such architecture, or refuses the arguments.
    """
    arguments = dict(arguments or {})
    architecture = name.split(".")[0]
    kind = type(meta_model(architecture, arguments))
    pretrained = timm.get_pretrained_cfg(name)
    side = image_size or arguments.get("img_size") or (pretrained.input_size[-1] if pretrained else None)
    if side:
        arguments["img_size"] = side
    any_size = any_size_argument(kind)
    arguments.setdefault(any_size, any_size != "strict_img_size")
    if "drop_path_rate" in inspect.signature(kind.__init__).parameters:
        arguments.setdefault("drop_path_rate", 0.0)  # timm's Swins drop a tenth; CLOC Table A: no dropout
    return TimmWrapperConfig(architecture=architecture, model_args=arguments, num_labels=0)


def timm_weights(source: Source, config: PreTrainedConfig) -> Weights:
    """Weights of a timm name (from its cache or the network), or of a safetensors file.

    Raises:
        ValueError: there are none, or they are those of another architecture; the keys are named.
    """
    if source.weights:
        if Path(source.weights).suffix != ".safetensors":
            raise ValueError(f"starting weights {source.text}: expected a .safetensors file of timm's names")
        theirs = load_state_dict(source.weights)
    else:
        try:
            theirs = timm.create_model(source.name, pretrained=True).state_dict()
        except (OSError, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"starting weights {source.text}: timm cannot load {source.name} ({said})") from error
    return fit_timm(theirs, config, source.text)


def fit_timm(theirs: Mapping[str, torch.Tensor], config: PreTrainedConfig, source: str) -> Weights:
    """Weights as the model of `config` takes them: timm's own filter converts old names and interpolates positions.

    Raises:
        ValueError: weights are missing or do not fit; the keys are named.
    """
    model = meta_model(config.architecture, config.model_args or {})
    mine = model.state_dict()
    convert = getattr(inspect.getmodule(type(model)), "checkpoint_filter_fn", None)
    fitted = dict(theirs) if convert is None else convert(dict(theirs), model)
    wrong = [(k, tuple(fitted[k].shape), tuple(v.shape)) for k, v in mine.items() if k in fitted]
    wrong = [entry for entry in wrong if entry[1] != entry[2]]
    if wrong:
        raise ValueError(misfit(source, wrong))
    gone = sorted(set(mine) - set(fitted))
    if gone:
        raise ValueError(f"{source}: {len(gone)} weights of {config.architecture} are missing (first: {gone[0]})")
    left = {"not part of this tower": sorted(set(fitted) - set(mine))}
    if set(fitted) <= set(theirs):
        left["left out by timm"] = sorted(set(theirs) - set(fitted))
    return Weights({PREFIX + k: fitted[k] for k in mine}, left_over=left)
