"""What is trained: a host, perhaps with adapters and a region module, and the loss of its answers.

Letters: B conversations, L tokens, R regions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cloc import comm
from cloc.structures import LossReport
from cloc.train.engine import Losses
from cloc.train.stepper import Stepper
from mllm_bridge.conversations.answers import IGNORED
from mllm_bridge.hosts import find_family
from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.hosts.loading import load_host, load_processor
from mllm_bridge.regions.host import RegionHooks, add_region_token, find_region_token
from mllm_bridge.regions.module import FOLDER, RegionModule, make_region_module
from mllm_bridge.tune.batches import ConversationBatch
from mllm_bridge.tune.parts import Anatomy, find_anatomy, freeze
from mllm_bridge.tune.settings import TuneConfig
from mllm_bridge.weights.folders import read_json


class Answered(NamedTuple):
    """What one forward says of its answers; sums over this rank's answer tokens.

    Attributes:
        nll: negative log-likelihood, natural logarithm, float32.
        correct: how often the most likely token was the right one.
    """

    nll: torch.Tensor
    correct: torch.Tensor


class Trainee(nn.Module):
    """A host and its region module as one model, whose forward pass is a training step's.

    Args:
        host: the host; adapters, if any, already sit in its layers.
        regions: the region module, None for a host without region tokens.
        tower: the host's vision tower.
        token_id: of `<region>`.
    """

    def __init__(
        self, host: PreTrainedModel, regions: RegionModule | None, tower: nn.Module, token_id: int | None
    ) -> None:
        super().__init__()
        self.host, self.regions, self.hooks = host, regions, None
        self._picks = "logits_to_keep" in inspect.signature(host.forward).parameters
        if regions is not None:
            assert token_id is not None
            self.hooks = RegionHooks(host, tower, host.get_decoder(), regions, token_id)

    def logits(self, region_boxes: torch.Tensor, region_image: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """(B, L, V) logits of the host's inputs; (R, 4) boxes in [0, 1] of the canvas and (R,) their images."""
        if self.hooks is None:
            return self.host(**inputs, use_cache=False).logits
        self.hooks.set(region_boxes, region_image)
        try:
            return self.host(**inputs, use_cache=False).logits
        finally:
            self.hooks.clear()

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> Answered:
        """Sums over the answer tokens; `labels` (B, L) is -100 where there is none."""
        following = labels[:, 1:]
        answers = following != IGNORED
        if self._picks:  # a vocabulary's worth of numbers for each image token is never needed
            positions = answers.any(dim=0).nonzero().flatten()
            logits, answers, following = (
                self.logits(**inputs, logits_to_keep=positions),
                answers[:, positions],
                following[:, positions],
            )
        else:
            logits = self.logits(**inputs)[:, :-1]
        chosen, right = logits[answers].float(), following[answers]
        return Answered(F.cross_entropy(chosen, right, reduction="sum"), (chosen.argmax(dim=-1) == right).sum())


class CachedTower(nn.Module):
    """A frozen tower that looks at each image once: for small hosts and many passes over the same images.

    Keys are the pixels themselves, so nothing about files or batches has to be known, and equal pixels give equal
    features.

    Args:
        tower: a frozen transformers vision model.

    Attributes:
        forwards: images that the tower has really seen.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.config = tower, tower.config
        self.forwards = 0
        self._known: dict[tuple[bytes, str], tuple[tuple[torch.Tensor | None, ...], torch.Tensor]] = {}

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, **asked: Any) -> BaseModelOutputWithPooling:
        """(I, 3, H, W) to the tower's hidden states (those that were asked for) and last hidden state."""
        asked["return_dict"] = True
        layers = repr(asked.get("output_hidden_states"))
        keys = [(hashlib.blake2b(image.cpu().numpy().tobytes()).digest(), layers) for image in pixel_values]
        missing = [index for index, key in enumerate(keys) if key not in self._known]
        if missing:
            self.forwards += len(missing)
            output = self.tower(pixel_values[missing], **asked)
            for row, index in enumerate(missing):
                states = tuple(None if s is None else s[row].clone() for s in output.hidden_states or ())
                self._known[keys[index]] = (states, output.last_hidden_state[row].clone())
        found = [self._known[key] for key in keys]
        states = tuple(
            None if rows[0] is None else torch.stack(rows) for rows in zip(*(one[0] for one in found), strict=True)
        )
        last = torch.stack([one[1] for one in found])
        return BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=states or None)


@dataclass
class Built:
    """A trainee with what belongs to it.

    Attributes:
        trainee: what moves.
        wrapped: peft's wrapper around the host, None without adapters.
        where: the host's parts.
        family: the host's family.
        processor: the host's, which knows `<region>` where there is a region module.
        dtype: of the host's weights on disk.
    """

    trainee: Trainee
    wrapped: PeftModel | None
    where: Anatomy
    family: HostFamily
    processor: ProcessorMixin
    dtype: torch.dtype


def build(config: TuneConfig, folder: Path, frozen: torch.dtype = torch.float32, cached: bool = False) -> Built:
    """Load a host and make it ready, the same every time.

    Args:
        config: what is trained.
        folder: of the host.
        frozen: type of the weights that do not move; those that move are float32.
        cached: let the tower see each image once.

    Raises:
        ValueError: the host cannot be read, or the export of `regions` does not belong to its tower.
    """
    family = find_family(read_json(folder / "config.json"), str(folder))
    host, processor = load_host(folder, family, "cpu"), load_processor(folder)
    dtype = host.dtype
    cast(host, frozen)
    where = find_anatomy(host, family)
    tower = host.get_submodule(family.tower_path)
    if cached:
        tower = CachedTower(tower)
        host.set_submodule(family.tower_path, tower)
    regions = _regions(config, folder, host, tower)
    if regions is not None:
        add_region_token(host, processor)
        regions.float()
        regions.prompter.requires_grad_(config.regions.train_prompter)
    made = freeze(host, where, config)
    wrapped = made if isinstance(made, PeftModel) else None
    trainee = Trainee(host, regions, tower, find_region_token(processor))
    return Built(trainee, wrapped, where, family, processor, dtype)


def cast(host: nn.Module, dtype: torch.dtype) -> None:
    """Give every weight a type, in place; buffers such as rotary frequencies keep their own, as in loading."""
    for parameter in host.parameters():
        parameter.data = parameter.data.to(dtype)


def _regions(config: TuneConfig, folder: Path, host: PreTrainedModel, tower: nn.Module) -> RegionModule | None:
    if (folder / FOLDER).is_dir():
        if config.regions.export is not None:
            raise ValueError(f"regions.export: {folder} already has a region module; leave regions.export out")
        return RegionModule.load(folder)
    if config.regions.export is None:
        return None
    export = Path(config.regions.export)
    table = host.get_input_embeddings().weight.detach().float()
    module = make_region_module(export, table.shape[1], float(table.square().mean().sqrt()), config.run.seed)
    ours, theirs = module.vision.tower, tower.config
    for name in ("model_type", "hidden_size", "num_hidden_layers", "patch_size", "image_size"):
        if getattr(ours, name, None) != getattr(theirs, name, None):
            raise ValueError(
                f"regions.export: {export} has a tower with {name} {getattr(ours, name, None)!r}, the host's has "
                f"{getattr(theirs, name, None)!r}; swap this export into the host first"
            )
    return module


def make_losses(stepper: Stepper) -> Losses:
    """One forward a batch; the loss is the mean over the answer tokens of all ranks."""

    def losses(batch: ConversationBatch, step: int) -> tuple[LossReport, torch.Tensor]:
        outputs: Any = stepper.forward(
            labels=batch.labels, region_boxes=batch.region_boxes, region_image=batch.region_image, **batch.inputs
        )
        numbers = [batch.answer_tokens, len(batch.keys), len(batch.region_boxes)]
        tokens, conversations, regions = comm.sum_over_ranks(numbers, stepper.device)
        share = outputs.nll / max(tokens, 1)
        counts = {"images": conversations, "answer_tokens": tokens, "regions": regions}
        return LossReport({"answer": share}, counts, {"answer_accuracy": outputs.correct / max(tokens, 1)}), share

    return losses
