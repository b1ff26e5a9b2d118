"""Runs the shards of a job on Ray Data: actors that hold the models, on this machine or on a cluster.

Ray starts a lost actor again and gives it its shard again. Every node must see shards and output under one path.
What is written is the same as without Ray: a shard is labelled by one actor, with one thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from cloc.data.shards import ShardSet
from cloc.label.folder import label_one
from cloc.label.local import Advance, Work

LOCAL = "local"


class ShardActor:
    """Holds the models, and labels one shard a call."""

    def __init__(self, work: Work) -> None:
        torch.set_num_threads(1)
        self.work, self.shards = work, ShardSet.open(work.source, kind="pairs")
        self.labeller = work.make(work.device_of(0))  # Ray shows an actor its own card only

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Label shard `row["number"]`; gives its number, its size and the seconds spent."""
        number = int(row["number"])
        seconds = label_one(self.work.folder, self.shards, number, self.labeller)
        spent = {f"seconds_{name}": float(value) for name, value in seconds.items()}
        return {"number": number, "samples": self.shards.counts[number], **spent}


def import_ray() -> Any:
    """The package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(
            f"--ray: expected the package ray, found none ({error}); `pip install 'ray[data]'`, or leave --ray out: "
            "--workers does the same on this machine"
        ) from error
    return ray


def run_ray(address: str, workers: int, work: Work, numbers: Sequence[int], advance: Advance) -> Counter[str]:
    """Label the shards on `workers` actors.

    Args:
        address: `local` to start Ray on this machine for the length of the job, else a cluster's address, or `auto`.
        workers: actors at once, one core each, and one card each where the device is `cuda`.
        work: what each needs.
        numbers: shards to do.
        advance: told how many samples more are done.

    Returns:
        The seconds that all actors spent together.

    Raises:
        ValueError: ray is not installed, there is no cluster at that address, or an actor reported a mistake.
    """
    ray = import_ray()
    started = _connect(ray, address, workers)
    seconds = Counter[str]()
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False  # the job has its own
        rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        pool = ray.data.ActorPoolStrategy(size=min(workers, len(numbers)))
        cards = {"num_gpus": 1} if work.device == "cuda" else {}
        start = time.perf_counter()
        done = rows.map(ShardActor, fn_constructor_args=(work,), compute=pool, num_cpus=1, **cards)
        for row in done.iter_rows():
            advance(int(row["samples"]))
            seconds.update({name[8:]: value for name, value in row.items() if name.startswith("seconds_")})
        seconds["ray"] = time.perf_counter() - start
    except (ray.exceptions.RayError, ray.exceptions.RayTaskError) as error:
        raise ValueError(f"--ray {address}: {_reason(error)}") from error
    finally:
        if started:
            ray.shutdown()
    return seconds


def _connect(ray: Any, address: str, workers: int) -> bool:
    """Start Ray or join a cluster; True where it is ours to end."""
    if ray.is_initialized():
        return False
    options = {"num_cpus": workers, "include_dashboard": False} if address == LOCAL else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level="WARNING", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--ray {address}: expected `local` or the address of a running cluster ({str(error).splitlines()[0]})"
        ) from error
    return True


def _reason(error: BaseException) -> str:
    """The last line of Ray's report that says something: the exception that the actor raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
