"""timm's ViTs and Swins: their facts, their starting weights, and the form in which hosts see them.

A timm model is built without memory and asked what it is. Letters: B images, N tokens, C width, S image size.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from torch import nn
from transformers import PreTrainedConfig, TimmWrapperConfig, TimmWrapperModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cloc.towers.sources import Source, Weights, describe_misfit

TIMM = "timm_wrapper"
"""The model type of transformers' wrapper around a timm model."""
PREFIX = "timm_model."
"""Where transformers' wrapper keeps a timm model."""


def make_timm_config(name: str, image_size: int | None, arguments: Mapping[str, Any] | None = None) -> PreTrainedConfig:
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
    kind = type(build_on_meta(architecture, arguments))
    pretrained = timm.get_pretrained_cfg(name)
    side = image_size or arguments.get("img_size") or (pretrained.input_size[-1] if pretrained else None)
    if side:
        arguments["img_size"] = side
    any_size = name_any_size_argument(kind)
    arguments.setdefault(any_size, any_size != "strict_img_size")
    if "drop_path_rate" in inspect.signature(kind.__init__).parameters:
        arguments.setdefault("drop_path_rate", 0.0)  # timm's Swins drop a tenth; CLOC Table A: no dropout
    return TimmWrapperConfig(architecture=architecture, model_args=arguments, num_labels=0)


def read_timm_weights(source: Source, config: PreTrainedConfig) -> Weights:
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
    model = build_on_meta(config.architecture, config.model_args or {})
    mine = model.state_dict()
    convert = getattr(inspect.getmodule(type(model)), "checkpoint_filter_fn", None)
    fitted = dict(theirs) if convert is None else convert(dict(theirs), model)
    wrong = [(k, tuple(fitted[k].shape), tuple(v.shape)) for k, v in mine.items() if k in fitted]
    wrong = [entry for entry in wrong if entry[1] != entry[2]]
    if wrong:
        raise ValueError(describe_misfit(source, wrong))
    gone = sorted(set(mine) - set(fitted))
    if gone:
        raise ValueError(f"{source}: {len(gone)} weights of {config.architecture} are missing (first: {gone[0]})")
    left = {"not part of this tower": sorted(set(fitted) - set(mine))}
    if set(fitted) <= set(theirs):
        left["left out by timm"] = sorted(set(theirs) - set(fitted))
    return Weights({PREFIX + k: fitted[k] for k in mine}, left_over=left)


@dataclass(frozen=True, slots=True)
class TimmFacts:
    """Facts of a timm ViT or Swin.

    Attributes:
        image_size: side of the square image in pixels.
        spec: (stride in pixels, channels) of each feature map, from fine to coarse.
        indices: which of timm's intermediates these maps are.
        any_size: it takes images of other sizes than `image_size`.
        any_size_argument: the argument of `timm.create_model` that makes it so.
    """

    image_size: int
    spec: tuple[tuple[int, int], ...]
    indices: tuple[int, ...]
    any_size: bool
    any_size_argument: str


def find_timm_facts(config: PreTrainedConfig) -> TimmFacts:
    """The facts of a `timm_wrapper` config.

    Raises:
        ValueError: timm has no such architecture, refuses its arguments, or it is no ViT or Swin.
    """
    return _facts(config.architecture, json.dumps(config.model_args or {}, sort_keys=True))


@lru_cache(maxsize=32)
def _facts(architecture: str, arguments: str) -> TimmFacts:
    model = build_on_meta(architecture, json.loads(arguments))
    embed = getattr(model, "patch_embed", None)
    if not hasattr(model, "forward_intermediates") or embed is None or not getattr(embed, "img_size", None):
        raise ValueError(f"vision tower: expected a timm ViT or Swin, got {architecture} ({type(model).__name__})")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError(
            f"vision tower: timm's {architecture} has batch norm, whose result depends on the other images of a "
            "process; use a ViT or Swin with layer norm"
        )
    sides = set(embed.img_size)
    if len(sides) != 1:
        raise ValueError(f"vision tower: expected a square image, timm's {architecture} has {tuple(embed.img_size)}")
    stages = [(info["reduction"], info["num_chs"]) for info in model.feature_info]
    plain = len({stride for stride, _ in stages}) == 1
    chosen = (len(stages) - 1,) if plain else tuple(range(len(stages)))
    if stages[-1][1] != model.num_features or getattr(model, "head_hidden_size", None) not in (
        None,
        model.num_features,
    ):
        raise ValueError(f"vision tower: the pooled vector of timm's {architecture} is not as wide as its tokens")
    return TimmFacts(
        image_size=sides.pop(),
        spec=tuple(stages[i] for i in chosen),
        indices=chosen,
        any_size=not embed.strict_img_size,
        any_size_argument=name_any_size_argument(type(model)),
    )


def build_on_meta(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """The model on the meta device, without its classifier.

    Raises:
        ValueError: timm has no such architecture (the nearest are named), or refuses the arguments.
    """
    name = architecture.split(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"timm {timm.__version__} has no model {architecture!r}; the nearest are {', '.join(near)}")
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **{"num_classes": 0, **arguments})
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"timm refuses {architecture} with {arguments}: {said}") from error


def name_any_size_argument(kind: type[nn.Module]) -> str:
    """`dynamic_img_size` of ViTs, `strict_img_size` of Swins."""
    takes = inspect.signature(kind.__init__).parameters
    return "strict_img_size" if "window_size" in takes and "strict_img_size" in takes else "dynamic_img_size"


class TimmTokens(TimmWrapperModel):
    """transformers' own class around a timm model, with the outputs that its other towers have.

    `config` gets `image_size`, `patch_size` (of the embedding) and `hidden_size` from the model that timm builds.
    """

    def __init__(self, config: TimmWrapperConfig):
        super().__init__(config)
        embed = getattr(self.timm_model, "patch_embed", None)
        sides = {*(getattr(embed, "img_size", None) or ())}
        if len(sides) != 1 or len({*embed.patch_size}) != 1 or not hasattr(self.timm_model, "forward_intermediates"):
            raise ValueError(
                f"encoder: expected a ViT or Swin of timm with square images and patches, got {config.architecture} "
                f"({type(self.timm_model).__name__})"
            )
        config.image_size, config.patch_size = sides.pop(), embed.patch_size[0]
        config.hidden_size = self.timm_model.num_features

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPooling:
        """Tokens of the patches, row by row.

        Args:
            pixel_values: (B, 3, S, S).
            output_hidden_states: whether they are wanted.
            return_dict: the answer is always by name.

        Returns:
            `last_hidden_state` (B, N, C) after the final norm; `hidden_states` (B, N, C) each: the embedded patches
            before positions, then what each block (of a Swin, each stage) gives before the final norm.
        """
        pixel_values = pixel_values.to(self.device, self.dtype)
        if not output_hidden_states:
            return BaseModelOutputWithPooling(
                last_hidden_state=self._tokens(self.timm_model.forward_features(pixel_values))
            )
        last, maps = self.timm_model.forward_intermediates(pixel_values)
        embedded = self.timm_model.patch_embed(pixel_values)
        embedded = embedded.flatten(1, 2) if embedded.ndim == 4 else embedded
        states = (embedded, *(one.flatten(2).transpose(1, 2) for one in maps))
        return BaseModelOutputWithPooling(last_hidden_state=self._tokens(last), hidden_states=states)

    def _tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Without CLS and registers; a Swin's are channels-last maps."""
        if features.ndim == 4:
            return features.flatten(1, 2)
        return features[:, getattr(self.timm_model, "num_prefix_tokens", 0) :]
