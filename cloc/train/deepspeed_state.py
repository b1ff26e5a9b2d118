"""DeepSpeed's scattered state to and from checkpoints that are free of topology: whole tensors by name.

The layout is that of `cloc.train.checkpoint`, so a run may go on with another number of ranks, another ZeRO stage, or
plain torch. Every rank takes part; the main one writes, and holds one whole copy of weights and moments in its CPU
memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from cloc import comm
from cloc.train import checkpoint

MOMENTS = ("exp_avg", "exp_avg_sq")


def gathered(engine: Any, parameter: torch.Tensor, rank: int | None = None) -> Any:
    """A context in which a parameter is whole on every rank; `rank` names the one whose changes are kept (ZeRO 3)."""
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter] if hasattr(parameter, "ds_id") else [], modifier_rank=rank)


def save_whole(folder: Path, engine: Any, kept: checkpoint.Kept) -> None:
    """Write weights, Adam's moments and its count of steps; every rank calls it.

    Args:
        folder: of the checkpoint.
        engine: DeepSpeed's.
        kept: what is written of its module.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    weights, moments = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, value in kept.state_dict(keep_vars=True).items():
        with gathered(engine, value):
            if comm.is_main():
                weights[name] = value.detach().cpu().clone().contiguous()
    steps = _steps(engine)
    _link(engine)
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        for key in MOMENTS:
            plain = engine.optimizer.state.get(parameter, {}) if engine.zero_optimization_stage() == 0 else None
            whole = safe_get_full_optimizer_state(parameter, key) if plain is None else plain.get(key)
            if whole is not None and comm.is_main():
                shape = checkpoint.shape_of(parameter)
                moments[f"{name}/{key}"] = whole.detach().cpu().clone().view(shape).contiguous()
        if f"{name}/{MOMENTS[0]}" in moments:
            moments[f"{name}/step"] = torch.tensor(steps)
    comm.on_main(lambda: checkpoint.write_tensors(folder, weights, moments))


def load_whole(folder: Path, engine: Any, kept: checkpoint.Kept) -> None:
    """Put them back; every rank calls it.

    Args:
        folder: of the checkpoint.
        engine: DeepSpeed's.
        kept: what the checkpoint holds of its module.

    Raises:
        ValueError: the checkpoint does not fit the model (see `cloc.train.checkpoint`), or its parameters have made
            different numbers of steps, which DeepSpeed's flat optimiser cannot say.
    """
    checkpoint.check_weights(folder, kept)
    checkpoint.check_moments(folder, kept)
    with safe_open(folder / checkpoint.WEIGHTS, "pt") as weights, torch.no_grad():
        for name, value in kept.state_dict(keep_vars=True).items():
            with gathered(engine, value, rank=0):
                value.copy_(weights.get_tensor(name).to(value.device))
    with safe_open(folder / checkpoint.MOMENTS, "pt") as moments:
        names = set(moments.keys())
        counts = {float(moments.get_tensor(name)) for name in names if name.endswith("/step")}
        if len(counts) > 1:
            raise ValueError(
                f"{folder}: its parameters have made {sorted(counts)} steps; DeepSpeed counts them all alike, go on "
                "with train.deepspeed=none"
            )
        if counts:
            _load_moments(engine, moments, names, counts.pop())


def _load_moments(engine: Any, moments: Any, names: set[str], steps: float) -> None:
    scattered = engine.zero_optimization_stage() > 0
    if scattered:
        for flat in _flat_parts(engine):
            state = {key: torch.zeros_like(flat) for key in MOMENTS}
            _inner(engine).state[flat] = {"step": torch.tensor(steps, device=flat.device), **state}
        _link(engine)
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad or f"{name}/{MOMENTS[0]}" not in names:
            continue
        found = {key: moments.get_tensor(f"{name}/{key}").to(engine.device) for key in MOMENTS}
        if not scattered:
            engine.optimizer.state[parameter] = {"step": torch.tensor(steps, device=engine.device), **found}
            continue
        with gathered(engine, parameter):
            whole = parameter.detach().float().clone()
        _put(parameter, whole)  # the copy that the optimiser moves
        for key, value in found.items():
            _put(parameter, value, key)


def _put(parameter: nn.Parameter, whole: torch.Tensor, key: str | None = None) -> None:
    """Set this rank's part of a parameter (None) or of one of its moments from the whole tensor."""
    from deepspeed import utils

    if not hasattr(parameter, "ds_id"):
        if key is None:
            utils.safe_set_full_fp32_param(parameter, whole)
        else:
            utils.safe_set_full_optimizer_state(parameter, whole, key)
        return
    # ZeRO 3 cuts into equal parts, the last one padded; DeepSpeed's call for whole values forgets the padding.
    size = parameter.ds_tensor.ds_numel  # type: ignore[attr-defined]  # DeepSpeed puts it there
    padded = nn.functional.pad(whole.flatten(), (0, size * comm.world_size() - whole.numel()))
    part = padded.narrow(0, size * comm.rank(), size)
    if key is None:
        utils.safe_set_local_fp32_param(parameter, part)
    else:
        utils.safe_set_local_optimizer_state(parameter, part, key)


def _flat_parts(engine: Any) -> list[torch.Tensor]:
    """This rank's part of each group, which is what ZeRO's inner optimiser moves."""
    zero = engine.optimizer
    return list(
        zero.fp32_partitioned_groups_flat
        if engine.zero_optimization_stage() == 3
        else zero.single_partition_of_fp32_groups
    )


def _link(engine: Any) -> None:
    """Tell ZeRO 1 and 2 where each parameter's moments lie.

    DeepSpeed 0.19 does so once, after the first group's step, when the other groups have none yet.
    """
    if engine.zero_optimization_stage() in (1, 2) and _inner(engine).state:
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _inner(engine: Any) -> torch.optim.Optimizer:
    """The optimiser itself, inside ZeRO's."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _steps(engine: Any) -> float:
    counts = {float(state["step"]) for state in _inner(engine).state.values() if "step" in state}
    return max(counts, default=0.0)
