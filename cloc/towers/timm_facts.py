"""What a timm model is, told by the model itself: it is built without memory and asked."""

from __future__ import annotations

import difflib
import inspect
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn
from transformers import PreTrainedConfig


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


def timm_facts(config: PreTrainedConfig) -> TimmFacts:
    """The facts of a `timm_wrapper` config.

    Raises:
        ValueError: timm has no such architecture, refuses its arguments, or it is no ViT or Swin.
    """
    return _facts(config.architecture, json.dumps(config.model_args or {}, sort_keys=True))


@lru_cache(maxsize=32)
def _facts(architecture: str, arguments: str) -> TimmFacts:
    model = meta_model(architecture, json.loads(arguments))
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
        any_size_argument=any_size_argument(type(model)),
    )


def meta_model(architecture: str, arguments: dict[str, Any]) -> nn.Module:
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


def any_size_argument(kind: type[nn.Module]) -> str:
    """`dynamic_img_size` of ViTs, `strict_img_size` of Swins."""
    takes = inspect.signature(kind.__init__).parameters
    return "strict_img_size" if "window_size" in takes and "strict_img_size" in takes else "dynamic_img_size"
