"""Several processes under torchrun or deepspeed: who one is, and how parts of an answer come together.

Answers travel as objects over gloo, between processes that one launcher started; nothing is read from a path.
"""

from __future__ import annotations

import os
from typing import Any


def rank() -> int:
    """This process among those of the launch, 0 without one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process prints and writes."""
    return rank() == 0


def join() -> None:
    """Find the others, once; nothing to do for one process."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")


def leave() -> None:
    """Part from the others."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def gather(part: Any) -> list[Any]:
    """What every process holds, by rank; the same list in each."""
    if world_size() == 1:
        return [part]
    import torch.distributed as dist

    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, part)
    return parts


def from_main(value: Any) -> Any:
    """What the main process holds."""
    return gather(value)[0]


def own_device(device: str) -> str:
    """`cuda` becomes this process's own one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and world_size() > 1 else device
