"""The kit's steppers for a model most of which is frozen: checkpoints hold only what moves, free of topology."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cloc import comm
from cloc.config import REPOSITORY
from cloc.train.optim import make_adamw, parameter_groups
from cloc.train.stepper import DeepSpeedStepper, Stepper, TorchStepper, read_deepspeed
from mllm_bridge.tune.parts import Anatomy, choose_learning_scales
from mllm_bridge.tune.settings import TuneConfig


def list_trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Moving:
    """The part of a model that moves; see `cloc.train.checkpoint.Kept`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter."""
        return iter(list_trained(self._model).items())

    def state_dict(self, *, keep_vars: bool = False) -> dict[str, torch.Tensor]:
        """Name and value, the parameters themselves with `keep_vars`."""
        return {name: value if keep_vars else value.detach() for name, value in self.named_parameters()}

    def load_state_dict(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put values back, in place."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(weights[name])


class TuneTorchStepper(TorchStepper):
    """Plain torch; see `TorchStepper`."""

    def kept(self) -> Moving:
        """See `TorchStepper`; frozen weights lie in the host's folder already."""
        return Moving(self.model)


class TuneDeepSpeedStepper(DeepSpeedStepper):
    """DeepSpeed ZeRO 0 to 3; see `DeepSpeedStepper`."""

    def kept(self) -> Moving:
        """See `DeepSpeedStepper`; frozen weights lie in the host's folder already."""
        return Moving(self.engine.module)


def read_deepspeed_settings(config: TuneConfig) -> dict[str, Any] | None:
    """The DeepSpeed JSON of the run, None for plain torch.

    Raises:
        ValueError: the file is missing or no JSON object.
    """
    name = config.train.deepspeed
    if name == "none":
        return None
    return read_deepspeed(next((p for p in (Path(name), REPOSITORY / name) if p.is_file()), Path(name)))


def make_stepper(config: TuneConfig, model: nn.Module, where: Anatomy, deepspeed: dict[str, Any] | None) -> Stepper:
    """AdamW over what moves, each part at its own rate; frozen weights are not in it.

    Args:
        config: optim and train.
        model: a `Trainee` on its device.
        where: the host's parts.
        deepspeed: settings of a DeepSpeed JSON, None for plain torch.
    """
    optim, accumulation = config.optim, config.train.accumulation
    groups = parameter_groups(model, optim.weight_decay, choose_learning_scales(list_trained(model), where, optim))
    adamw = make_adamw(groups, optim.lr, (optim.beta1, optim.beta2), optim.eps)
    bf16 = config.run.precision == "bf16"
    if deepspeed is None:
        return TuneTorchStepper(model, adamw, accumulation, optim.clip_grad_norm, bf16)
    micro = config.train.batch_size // comm.world_size()
    return TuneDeepSpeedStepper(model, adamw, deepspeed, micro, accumulation, optim.clip_grad_norm, bf16)
