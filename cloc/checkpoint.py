"""Service room: checkpoints to resume from. Safetensors and JSON written by us, free of topology; no pickle.

A checkpoint is written under another name and renamed when it is whole. The random state needs no place in it: every
draw is a function of (seed, step) or (seed, epoch, sample key).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

STATE, WEIGHTS, MOMENTS = "state.json", "model.safetensors", "optimizer.safetensors"


def newest(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step in a run's `checkpoints/`, None where there is none."""
    found = [path for path in folder.glob("step-*") if (path / STATE).is_file() and path.name[5:].isdigit()]
    return max(found, key=lambda path: int(path.name[5:]), default=None)


def begin(folder: Path, step: int) -> Path:
    """An empty folder beside the final one, to write a checkpoint into."""
    temporary = folder / f".step-{step}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def finish(temporary: Path, state: dict, keep: int) -> Path:
    """Write the state last, give the checkpoint its name, and remove all but the newest `keep`."""
    (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    folder = temporary.parent
    final = folder / f"step-{state['step']}"
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    older = sorted((p for p in folder.glob("step-*") if p.name[5:].isdigit()), key=lambda p: int(p.name[5:]))
    for path in older[:-keep]:
        shutil.rmtree(path)
    return final


def read_state(path: Path) -> dict:
    """The state of a checkpoint: step, config, threads, world size."""
    return json.loads((path / STATE).read_text(encoding="utf-8"))


class Kept(Protocol):
    """What a checkpoint holds of a model: the whole module, or a part with this much of a module's manners."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter."""

    def state_dict(self, *, keep_vars: bool = False) -> Mapping[str, torch.Tensor]:
        """Name and value, the parameters themselves with `keep_vars`."""

    def load_state_dict(self, weights: Mapping[str, torch.Tensor]) -> Any:
        """Put values back, in place."""


def save_tensors(folder: Path, model: Kept, optimizer: torch.optim.Optimizer) -> None:
    """Write model weights and Adam's moments, each under its parameter's name."""
    moments = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    write_tensors(folder, {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, moments)


def write_tensors(folder: Path, weights: dict[str, torch.Tensor], moments: dict[str, torch.Tensor]) -> None:
    """Write whole tensors on the CPU: weights by name, moments as NAME/exp_avg, NAME/exp_avg_sq and NAME/step."""
    save_file(weights, folder / WEIGHTS)
    save_file(moments, folder / MOMENTS)


def check_weights(folder: Path, model: Kept) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        ValueError: it holds no tensors of ours, or a weight is missing or left over.
    """
    if not (folder / WEIGHTS).is_file():
        raise ValueError(
            f"{folder}: expected {WEIGHTS}; a checkpoint with DeepSpeed's own files is from an earlier version of the "
            "kit and goes on with that one"
        )
    with safe_open(folder / WEIGHTS, "pt") as weights:
        wrong = sorted(set(weights.keys()) ^ set(model.state_dict()))
    if wrong:
        raise ValueError(f"{folder}: the checkpoint and the model differ in {len(wrong)} weights (first: {wrong[0]})")


def load_tensors(folder: Path, model: Kept, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and moments back.

    Raises:
        ValueError: a weight is missing or left over, or a moment has no parameter.
    """
    check_weights(folder, model)
    model.load_state_dict(load_file(folder / WEIGHTS))
    parameters = dict(model.named_parameters())
    for full, value in load_file(folder / MOMENTS).items():
        name, _, key = full.rpartition("/")
        if name not in parameters:
            raise ValueError(f"{folder}: the optimiser's state for {name!r} has no parameter in the model")
        parameter = parameters[name]
        place = value if key == "step" else value.to(parameter.device)
        optimizer.state[parameter][key] = place
