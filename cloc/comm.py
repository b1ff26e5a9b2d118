"""What ranks say to each other. In one process every function is the identity.

Letters: W ranks, K rows of this rank, G rows of all ranks.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def rank() -> int:
    """This process's rank, 0 where there is one process."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """The number of processes, 1 where there is one process."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """True on the one rank that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait for every rank."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def _counts(rows: int, device: torch.device) -> list[int]:
    local = torch.tensor([rows], dtype=torch.int64, device=device)
    gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, local)
    return [int(count) for count in gathered]


class _GatherRows(torch.autograd.Function):
    """All rows of all ranks, in rank order; ranks may hold different numbers of rows, none included.

    Gloo and NCCL want equal shapes, so each rank pads to the largest. The gradient of a row is the sum of what every
    rank says about it, which is what the derivative of a sum over ranks asks for.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        counts = _counts(rows.shape[0], rows.device)
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)  # summed in place, and autograd may share it
        dist.all_reduce(grad)
        start = sum(ctx.counts[: dist.get_rank()])
        return grad[start : start + ctx.counts[dist.get_rank()]]


def gather_rows(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Rows of every rank, differentiable.

    Args:
        rows: (K, ...), K may differ between ranks and may be 0.

    Returns:
        (G, ...) in rank order, and the position of this rank's first row.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows, 0
    counts = _counts(rows.shape[0], rows.device)
    if max(counts) == 0:
        return rows, 0
    return _GatherRows.apply(rows), sum(counts[: dist.get_rank()])


def at_least_fp32(values: torch.Tensor) -> torch.Tensor:
    """Half precision to float32; float64 stays, so that gradients can be checked in it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def logsumexp_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Element-wise log of the sum of exponentials over all ranks, without a gradient; minus infinity adds nothing."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    highest = values.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    highest = highest.clamp(min=torch.finfo(values.dtype).min)  # minus infinity on every rank
    total = (values - highest).exp()
    dist.all_reduce(total)
    return highest + total.log()


def sum_over_ranks(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """Element-wise sum of numbers over all ranks, in float64."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [float(value) for value in values]
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()


def add_counters(counter: Counter[str], device: torch.device | str = "cpu") -> Counter[str]:
    """The sum of every rank's counter. Names are exchanged only where a rank has any.

    `device` is the one that the process group speaks over: NCCL takes no tensor of the CPU.
    """
    if sum_over_ranks([len(counter)], device)[0] == 0 or not dist.is_initialized() or dist.get_world_size() == 1:
        return counter
    all_of_them: list[Counter[str]] = [Counter()] * dist.get_world_size()
    dist.all_gather_object(all_of_them, counter)
    return sum(all_of_them, Counter())


def join(device: str, deepspeed: bool) -> None:
    """Join the other processes (NCCL on accelerators, gloo elsewhere) and take this process's share of the cores.

    One process alone on its machine takes as many threads as `OMP_NUM_THREADS` says, where it is set: whoever starts
    several runs side by side shares the cores out so. With several ranks it is torchrun that sets it, always to 1.

    Args:
        device: `cpu` or `cuda`.
        deepspeed: start DeepSpeed's own communication too; it wants a process group even in one process.
    """
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world)
    if device == "cuda":
        torch.cuda.set_device(local)
    asked = os.environ.get("OMP_NUM_THREADS", "") if local_world == 1 else ""
    torch.set_num_threads(max(1, int(asked) if asked.isdecimal() else len(os.sched_getaffinity(0)) // local_world))
    if dist.is_initialized() or not (deepspeed or world > 1):
        return
    if "MASTER_ADDR" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    if deepspeed:
        import deepspeed as ds

        # On a CPU it would compile an op at first use, for sums in inference, which training never asks for.
        ds.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        ds.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", verbose=False)


def from_main(value: object) -> object:
    """The main rank's value, on every rank."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gather_objects(part: Value) -> list[Value]:
    """What every rank holds, in rank order; the same list on each. Travels as pickles between ranks of one launch."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [part]
    parts: list[Value] = [part] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def on_main(work: Callable[[], Value]) -> Value:
    """What the main rank's work gives, on every rank; the others wait.

    Raises:
        ValueError, OSError: on every rank, what the work raised of these, so that no rank waits for one that is gone.
    """
    done: tuple[Value | None, Exception | None] = None, None
    if is_main():
        try:
            done = work(), None
        except (ValueError, OSError) as raised:
            done = None, raised
    value, error = cast("tuple[Value, Exception | None]", from_main(done))
    if error is not None:
        raise error
    return value


def leave() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
