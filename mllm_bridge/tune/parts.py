"""Which weights of a host move: projector, language model (adapters or whole), tower; the rest is frozen.

The three parts are found in any host the same way: the tower where its family says, the language model where
transformers says, and the projector is what is left between them (separators and norms included).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.tune.settings import LoraSettings, OptimSettings, TuneConfig

Part = Literal["tower", "language", "projector", "adapter", "region"]
ADAPTER = "lora_"
"""In the name of every weight that peft adds for LoRA."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where the parts of a host sit in memory, as prefixes of parameter names.

    Attributes:
        towers: of the vision tower (or towers).
        language: of the language model and its output layer.
    """

    towers: tuple[str, ...]
    language: tuple[str, ...]

    def part(self, name: str) -> Part:
        """The part that a parameter of the host belongs to."""
        if name.startswith(self.towers):
            return "tower"
        return "language" if name.startswith(self.language) else "projector"


def find_anatomy(host: PreTrainedModel, family: HostFamily) -> Anatomy:
    """Find the parts of a host.

    Raises:
        ValueError: the tower is not where the family says, or nothing is left for a projector.
    """
    named = {id(module): name for name, module in host.named_modules()}
    paths = tuple(f"model.{path}" for path in family.towers)
    language = [named[id(host.get_decoder())]]
    output = host.get_output_embeddings()
    if output is not None:
        language.append(named[id(output)])
    found = Anatomy(tuple(f"{path}." for path in paths), tuple(f"{path}." for path in language))
    names = [name for name, _ in host.named_parameters()]
    for part in ("tower", "language", "projector"):
        if not any(found.part(name) == part for name in names):
            raise ValueError(f"host: found no {part} in {type(host).__name__} (towers at {paths}, language {language})")
    return found


def freeze(host: PreTrainedModel, where: Anatomy, config: TuneConfig) -> PreTrainedModel | PeftModel:
    """Freeze a host but for the parts that are trained, and put adapters in where they are asked for.

    Args:
        host: changed in place; weights that move become float32.
        where: its parts.
        config: `parts` and `lora`.

    Returns:
        The host, inside peft's wrapper where there are adapters.
    """
    moving = {
        "projector": config.parts.projector,
        "language": config.parts.language == "full",
        "tower": config.parts.tower,
    }
    for name, parameter in host.named_parameters():
        parameter.requires_grad_(moving[where.part(name)])
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if config.parts.language != "lora":
        return host
    kept = [parameter for parameter in host.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        wrapped = get_peft_model(host, make_lora_config(host, where, config.lora))
    for parameter in kept:  # peft froze them with the rest
        parameter.requires_grad_(True)
    return wrapped


def make_lora_config(host: PreTrainedModel, where: Anatomy, lora: LoraSettings) -> LoraConfig:
    """LoRA on every linear layer of the language model but its output layer, and on the tower only if asked."""
    output = host.get_output_embeddings()
    targets = [
        name
        for name, module in host.named_modules()
        if isinstance(module, nn.Linear)
        and module is not output
        and (where.part(f"{name}.") == "language" or (lora.tower and where.part(f"{name}.") == "tower"))
    ]
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )


def choose_learning_scales(names: Iterable[str], where: Anatomy, optim: OptimSettings) -> dict[str, float]:
    """For each trained parameter of a `Trainee` its rate over the base rate."""
    scales = {
        "projector": optim.projector_lr_scale,
        "tower": optim.tower_lr_scale,
        "region": optim.region_lr_scale,
        "language": 1.0,
        "adapter": 1.0,
    }
    return {name: scales[find_trained_part(name, where)] for name in names}


def find_trained_part(name: str, where: Anatomy) -> Part:
    """The part of a parameter of a `Trainee`, where the host lies under `host.` and the region module beside it."""
    if name.startswith("regions."):
        return "region"
    if ADAPTER in name:
        return "adapter"
    return where.part(name.removeprefix("host."))
