"""What a step is made of: plain torch or DeepSpeed behind the same five verbs.

Losses are sums over ranks (each rank holds its share), so gradients are summed over ranks. DeepSpeed averages over
ranks: its share is multiplied by their number first.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from cloc import comm
from cloc.files import read_object
from cloc.structures import Outputs
from cloc.train import checkpoint
from cloc.train.deepspeed_state import gathered, load_whole, save_whole
from cloc.train.optim import group_rate


class Stepper(Protocol):
    """Runs the model and moves its weights."""

    device: torch.device

    def forward(self, **inputs: Any) -> Outputs:
        """All features of one batch, in one call of the model."""
        ...

    def backward(self, share: torch.Tensor) -> None:
        """Add the gradient of this rank's share of the loss."""
        ...

    def step(self, rate: float, number: float = math.inf) -> float:
        """Clip, move the weights with the base learning rate `rate`, clear the gradients; returns the gradient norm.

        `number` is the optimiser step that it is, for groups that rest at first.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state into a checkpoint's folder; every rank calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Read them back; every rank calls it."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """The whole weights by name, fp32, on the CPU of the main rank; every rank calls it."""
        ...


class TorchStepper:
    """Plain torch: every rank holds everything, gradients are summed with one all-reduce.

    Args:
        model: on its device.
        optimizer: whose groups carry `lr_scale`.
        accumulation: batches a step.
        max_norm: where the global gradient norm is cut.
        bf16: run the forward pass under autocast.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, accumulation: int, max_norm: float, bf16: bool
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.accumulation, self.max_norm, self.bf16 = accumulation, max_norm, bf16
        self.device = next(model.parameters()).device

    def forward(self, **inputs: torch.Tensor) -> Outputs:
        """See `Stepper`."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            return self.model(**inputs)

    def backward(self, share: torch.Tensor) -> None:
        """See `Stepper`."""
        (share / self.accumulation).backward()

    def step(self, rate: float, number: float = math.inf) -> float:
        """See `Stepper`."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if comm.world_size() > 1:
            self._sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        set_rate(self.optimizer, rate, number)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    @staticmethod
    def _sum_gradients(parameters: list[nn.Parameter]) -> None:
        # A branch that rests on every rank keeps no gradient, so that its moments and decay rest too.
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        dist.all_reduce(used)
        moved = [p for p, ranks in zip(parameters, used.tolist(), strict=True) if ranks > 0]
        if not moved:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in moved]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for parameter, part in zip(moved, flat.split([p.numel() for p in moved]), strict=True):
            parameter.grad = part.view_as(parameter)

    def save(self, folder: Path) -> None:
        """See `Stepper`; the main rank writes, since all hold the same."""
        comm.on_main(lambda: checkpoint.save_tensors(folder, self.kept(), self.optimizer))

    def load(self, folder: Path) -> None:
        """See `Stepper`."""
        checkpoint.load_tensors(folder, self.kept(), self.optimizer)

    def weights(self) -> dict[str, torch.Tensor]:
        """See `Stepper`."""
        return {k: v.detach().float().cpu().contiguous() for k, v in self.kept().state_dict().items()}

    def kept(self) -> checkpoint.Kept:
        """What checkpoints and `weights` hold: all of the model."""
        return self.model


class DeepSpeedStepper:
    """DeepSpeed ZeRO 0 to 3. Its checkpoints are those of plain torch, free of topology.

    Args:
        model: on its device.
        optimizer: AdamW over the model's parameters.
        settings: what the user's DeepSpeed JSON says (`zero_optimization` and the like).
        micro_batch: samples a rank and batch, which DeepSpeed wants to know.
        accumulation: batches a step.
        max_norm: where the global gradient norm is cut.
        bf16: run the forward pass under autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: dict[str, Any],
        micro_batch: int,
        accumulation: int,
        max_norm: float,
        bf16: bool,
    ) -> None:
        import deepspeed

        ours = {
            "train_micro_batch_size_per_gpu": micro_batch,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": max_norm,
            "zero_allow_untested_optimizer": True,
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        }
        clash = sorted(set(settings) & set(ours))
        if clash:
            raise ValueError(
                f"train.deepspeed: {clash[0]!r} is set by the run's config; remove it from the DeepSpeed file"
            )
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config={**settings, **ours}, dist_init_required=False
        )
        self.accumulation, self.device = accumulation, self.engine.device

    def forward(self, **inputs: torch.Tensor) -> Outputs:
        """See `Stepper`."""
        return self.engine(**inputs)

    def backward(self, share: torch.Tensor) -> None:
        """See `Stepper`; DeepSpeed divides by the batches a step itself."""
        self.engine.backward(share * comm.world_size())
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()

    def step(self, rate: float, number: float = math.inf) -> float:
        """See `Stepper`."""
        set_rate(self.optimizer, rate, number)
        plain = self._plain_norm()
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float(norm if norm is not None else plain)

    def _plain_norm(self) -> float | torch.Tensor:
        """The gradient norm before the clip, which DeepSpeed does not tell without ZeRO."""
        if self.engine.zero_optimization_stage() > 0:
            return float("nan")
        norms = [p.grad.norm() for p in self.engine.module.parameters() if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack(norms))

    def save(self, folder: Path) -> None:
        """See `Stepper`; every tensor is gathered once."""
        save_whole(folder, self.engine, self.kept())

    def load(self, folder: Path) -> None:
        """See `Stepper`."""
        load_whole(folder, self.engine, self.kept())

    def weights(self) -> dict[str, torch.Tensor]:
        """See `Stepper`; under ZeRO 3 every parameter is gathered once."""
        whole = {}
        for name, value in self.kept().state_dict(keep_vars=True).items():
            with gathered(self.engine, value):
                whole[name] = value.detach().float().cpu().clone().contiguous()
        return whole

    def kept(self) -> checkpoint.Kept:
        """What checkpoints and `weights` hold: all of the model."""
        return self.engine.module


def set_rate(optimizer: torch.optim.Optimizer, rate: float, number: float = math.inf) -> None:
    """Give every group its rate at a step; see `cloc.train.optim.group_rate`."""
    for group in optimizer.param_groups:
        group["lr"] = group_rate(group, rate, number)


def read_deepspeed(path: Path) -> dict[str, Any]:
    """A DeepSpeed JSON.

    Raises:
        ValueError: the file is missing or no JSON object.
    """
    if not path.is_file():
        raise ValueError(
            f"train.deepspeed: {path} is no file; known: configs/deepspeed/zero{{0,1,2,3}}.json, none, auto"
        )
    return read_object(path, "the settings of DeepSpeed (train.deepspeed)")
