"""Checkpoints to resume from. Safetensors and JSON written by us, free of topology; no pickle.

A checkpoint is written under another name and renamed when it is whole; its `state.json`, which names the sizes and
hashes of the other files, comes last. One that was cut or changed afterwards is told, and an older whole one serves.
The random state needs no place in it: every draw is a function of (seed, step) or (seed, epoch, sample key).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cloc.command import printable
from cloc.disk import disk_errors, open_to_umask
from cloc.files import read_object

STATE, WEIGHTS, MOMENTS = "state.json", "model.safetensors", "optimizer.safetensors"
HELD = (WEIGHTS, MOMENTS)
MOST = {"step": 10**12, "threads": 4096, "world": 10**6}
"""Largest numbers that a state may say."""
OF_ADAM = ("exp_avg", "exp_avg_sq", "step")
_NAME = re.compile(r"step-([0-9]{1,12})", re.ASCII)


def _step_of(path: Path) -> int | None:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def _warn(line: str) -> None:
    print(printable(f"warning: {line}"), file=sys.stderr, flush=True)


def _numbered(folder: Path) -> list[Path]:
    """The checkpoints in a folder by name, oldest first, whole or not."""
    return sorted((p for p in folder.glob("step-*") if _step_of(p) is not None), key=lambda p: _step_of(p) or 0)


def newest(folder: Path, log: Callable[[str], object] = _warn) -> Path | None:
    """The whole checkpoint with the highest step in a run's `checkpoints/`, None where there is no checkpoint.

    Args:
        folder: `checkpoints/` of a run.
        log: called with each newer one that was passed over, and why.

    Raises:
        ValueError: there are checkpoints and none is whole.
    """
    found = _numbered(folder)[::-1]
    reasons: list[str] = []
    for path in found:
        try:
            check_whole(path)
        except (ValueError, OSError) as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            log(f"passed over: {reason}; {path.name} is whole and serves")
        return path
    if reasons:
        raise ValueError(
            f"{folder}: no whole checkpoint among {len(found)} (the newest: {reasons[0]}); put one back, or remove the "
            "folder to begin the run anew"
        )
    return None


def check_whole(path: Path) -> None:
    """Refuse a checkpoint that is cut or was changed after it was written.

    Sizes and hashes are compared where the state names them (those of earlier versions of the kit do not); the header
    of each file is read in any case, which tells its length.

    Raises:
        ValueError: the message begins with the file.
    """
    state = _whole_state(path)
    if state["step"] != _step_of(path):
        raise ValueError(f"{path / STATE}: expected step {_step_of(path)}, got {state['step']}")
    for name in HELD:
        file, recorded = path / name, state.get("files", {}).get(name)
        if not file.is_file():
            raise ValueError(
                f"{file}: missing (a checkpoint with DeepSpeed's own files is from an earlier version of the kit and "
                "goes on with that one)"
            )
        size = file.stat().st_size
        if recorded is not None and size != recorded["bytes"]:
            raise ValueError(f"{file}: expected {recorded['bytes']:,} bytes, got {size:,}; it was cut or changed")
        with opened(file):
            pass
        if recorded is not None and _sha256(file) != recorded["sha256"]:
            raise ValueError(f"{file}: its content is not what was written (another SHA-256); it was changed")


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A file of tensors, of which single ones can be read.

    Raises:
        ValueError: it is no whole safetensors file.
    """
    try:
        with safe_open(file, "pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise ValueError(f"{file}: no whole safetensors file ({error})") from error


def part(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written until it is whole, beside its final place."""
    return folder / f".step-{step}.part"


def begin(folder: Path, step: int) -> Path:
    """An empty folder beside the final one, to write a checkpoint into."""
    temporary = part(folder, step)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def finish(temporary: Path, state: dict, keep: int) -> Path:
    """Write the state last, give the checkpoint its name, and remove all but the newest `keep`."""
    files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(temporary.iterdir())}
    (temporary / STATE).write_text(json.dumps({**state, "files": files}, indent=1) + "\n", encoding="utf-8")
    folder = temporary.parent
    final = folder / f"step-{state['step']}"
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for path in _numbered(folder)[:-keep]:
        shutil.rmtree(path)
    return final


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint: step, threads, world (how many ranks).

    Raises:
        ValueError: it is missing, no JSON object, or a value in it is of another type or out of range.
    """
    return {name: value for name, value in _whole_state(path).items() if name != "files"}


def _whole_state(path: Path) -> dict[str, Any]:
    file = path / STATE
    state = read_object(file, "the state of a checkpoint")
    for name, most in MOST.items():
        value, least = state.get(name, 1), 0 if name == "step" else 1
        if type(value) is not int or not least <= value <= most or (name == "step" and name not in state):
            raise ValueError(f"{file}: {name}: expected a whole number from {least} to {most:,}, got {value!r:.40}")
    files = state.get("files", {})
    if not isinstance(files, dict) or not all(_is_told(files.get(name)) for name in files):
        raise ValueError(f"{file}: files: expected bytes and sha256 of each file, got {files!r:.80}")
    return state


def _is_told(entry: object) -> bool:
    return isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Write whole tensors on the CPU: weights by name, moments as NAME/exp_avg, NAME/exp_avg_sq and NAME/step.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    for name, tensors in ((WEIGHTS, weights), (MOMENTS, moments)):
        with disk_errors(folder / name):
            save_file(tensors, folder / name)
            open_to_umask(folder / name)


def shape_of(value: torch.Tensor) -> tuple[int, ...]:
    """The whole shape of a weight, which DeepSpeed's ZeRO 3 keeps beside it."""
    return tuple(getattr(value, "ds_shape", value.shape))


def check_weights(folder: Path, model: Kept) -> None:
    """Refuse a checkpoint of another model, before anything of it is loaded.

    Raises:
        ValueError: it holds no tensors of ours, a weight is missing or left over, or has another shape or type.
    """
    ours = {name: (list(shape_of(value)), _type_of(value)) for name, value in model.state_dict(keep_vars=True).items()}
    with opened(folder / WEIGHTS) as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}
        theirs = {name: (list(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
    wrong = sorted(set(theirs) ^ set(ours))
    if wrong:
        raise ValueError(f"{folder}: the checkpoint and the model differ in {len(wrong)} weights (first: {wrong[0]})")
    other = sorted(name for name in ours if ours[name] != theirs[name])
    if other:
        expected, got = ours[other[0]], theirs[other[0]]
        raise ValueError(
            f"{folder / WEIGHTS}: {other[0]}: expected {expected[1]} of shape {expected[0]}, got {got[1]} of shape "
            f"{got[0]}; the checkpoint is of another model"
        )


def check_moments(folder: Path, model: Kept) -> None:
    """Refuse an optimiser's state of another model, before anything of it is loaded.

    Raises:
        ValueError: a tensor belongs to no parameter, is none of Adam's, has another shape than its parameter, or one of
            a parameter's three is missing.
    """
    parameters, file = dict(model.named_parameters()), folder / MOMENTS
    with opened(file) as moments:
        slices = {full: moments.get_slice(full) for full in moments.keys()}
        found = {full: (list(one.get_shape()), one.get_dtype()) for full, one in slices.items()}
        counts = {full: moments.get_tensor(full) for full in found if full.endswith("/step") and found[full][0] == []}
    for full, (shape, kind) in found.items():
        name, _, key = full.rpartition("/")
        if name not in parameters:
            raise ValueError(f"{folder}: the optimiser's state for {name!r} has no parameter in the model")
        expected = [] if key == "step" else list(shape_of(parameters[name]))
        if key not in OF_ADAM or shape != expected or not kind.startswith(("F", "BF")):
            raise ValueError(f"{file}: {full}: expected floats of shape {expected}, got {kind} of shape {shape}")
        lost = [other for other in OF_ADAM if f"{name}/{other}" not in found]
        if lost:
            raise ValueError(f"{file}: {name}: expected {', '.join(OF_ADAM)}, {lost[0]} is missing")
    for full, count in counts.items():
        if not 0 <= float(count) < math.inf:
            raise ValueError(f"{file}: {full}: expected a count of steps, got {float(count)}")


def _type_of(value: torch.Tensor) -> str:
    """As safetensors writes it: F32 for float32, BF16, I64."""
    name = str(value.dtype).removeprefix("torch.")
    return name.replace("bfloat", "BF").replace("float", "F").replace("uint", "U").replace("int", "I").upper()


def read_weights(folder: Path, model: Kept) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, by name, fp32 where they are floats.

    Raises:
        ValueError: see `check_weights`.
    """
    check_weights(folder, model)
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / WEIGHTS).items()}


def load_tensors(folder: Path, model: Kept, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and moments back.

    Raises:
        ValueError: see `check_weights` and `check_moments`; nothing is changed then.
    """
    check_weights(folder, model)
    check_moments(folder, model)
    model.load_state_dict(load_file(folder / WEIGHTS))
    parameters = dict(model.named_parameters())
    for full, value in load_file(folder / MOMENTS).items():
        name, _, key = full.rpartition("/")
        parameter = parameters[name]
        place = value if key == "step" else value.to(parameter.device)
        optimizer.state[parameter][key] = place
