"""Runs the shards of a job on Ray Data: actors that hold the models, on this machine or on a cluster.

Ray starts a lost actor again and gives it its shard again. Every node must see shards and output under one path.
What is written is the same as without Ray: a shard is labelled by one actor, with one thread.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from cloc.data.shards import ShardSet
from cloc.label.local import TRIES, Advance, Work
from cloc.label.shard import Labeller, label_one

LOCAL = "local"
MENDING = {"max_restarts": -1, "max_task_retries": TRIES - 1}
"""An actor is started again as often as it is lost; a shard that was lost so often with its actor ends the job."""
_OWN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""For a Ray of our own: it tells its makers nothing over the network, and its workers stand back behind nobody (left
to itself it gives them niceness 15, with which any other program on the machine all but stops them)."""
_LOADING = "writing-loading-"
"""Scraps of the work folder, as all `writing-*` are."""


class ShardActor:
    """Holds the models, and labels one shard a call."""

    def __init__(self, work: Work, workers: int) -> None:
        torch.set_num_threads(1)
        self.work, self.shards = work, ShardSet.open(work.source, kind="pairs")
        self.labeller = load_labeller(work, workers)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Label shard `row["number"]`; gives its number, its size and the seconds spent."""
        number = int(row["number"])
        seconds = label_one(self.work.job, self.shards, number, self.labeller)
        spent = {f"seconds_{name}": float(value) for name, value in seconds.items()}
        return {"number": number, "samples": self.shards.counts[number], **spent}


def load_labeller(work: Work, workers: int) -> Labeller:
    """The models, unless loading them has killed actor after actor: Ray would go on with that for ever.

    Args:
        work: what to load; its folder gets a sign that is gone once this actor has loaded or failed in words.
        workers: actors at once.

    Raises:
        ValueError: `TRIES` times as many actors as there are died over it, and none came through since.
    """
    lost = list(work.job.folder.glob(f"{_LOADING}*"))
    if len(lost) >= (TRIES + 1) * workers:  # the others may be loading at this moment
        raise ValueError(
            f"{len(lost) - workers} workers died while they loaded the models (often a lack of memory); take fewer "
            "--workers or another --precision, then run the same command again: what is finished stays"
        )
    sign = work.job.folder / f"{_LOADING}{platform.node()}-{os.getpid()}-{time.time_ns()}"
    sign.mkdir()
    try:
        labeller = work.make(work.device_of(0))  # Ray shows an actor its own card only
    finally:
        shutil.rmtree(sign, ignore_errors=True)
    for before in lost:
        shutil.rmtree(before, ignore_errors=True)
    return labeller


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
        advance: called with how many samples more are done.

    Returns:
        The seconds that all actors spent together.

    Raises:
        ValueError: ray is not installed, there is no cluster at that address, or an actor reported a mistake.
    """
    ray = import_ray()
    seconds = Counter[str]()
    with connect_ray(address, workers):
        ray.data.DataContext.get_current().enable_progress_bars = False  # the job has its own
        rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        # a shard is long: one that waits in the queue of a busy actor could be at work in an idle one
        pool = ray.data.ActorPoolStrategy(size=min(workers, len(numbers)), max_tasks_in_flight_per_actor=1)
        cards = {"num_gpus": 1} if work.device == "cuda" else {}
        start = time.perf_counter()
        try:
            done = rows.map(
                ShardActor, fn_constructor_args=(work, workers), compute=pool, num_cpus=1, **cards, **MENDING
            )
            for row in done.iter_rows():
                advance(int(row["samples"]))
                seconds.update({name[8:]: value for name, value in row.items() if name.startswith("seconds_")})
        except ray.exceptions.RayError as error:
            raise ValueError(f"--ray {address}: {_find_reason(error)}") from error
        seconds["ray"] = time.perf_counter() - start
    return seconds


@contextmanager
def connect_ray(address: str, workers: int) -> Iterator[None]:
    """Ray at that address; a cluster of this machine's own ends with the block, and its folder of logs goes.

    A program that has joined a cluster before stays in it.

    Args:
        address: as for `run_ray`.
        workers: cores that a cluster of this machine's own may use.

    Raises:
        ValueError: ray is not installed, or there is no cluster at that address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    logs = None
    if address == LOCAL:
        for name, value in _OWN.items():
            os.environ.setdefault(name, value)
        logs = tempfile.mkdtemp(prefix="ray-")
        options = {"num_cpus": workers, "include_dashboard": False, "_temp_dir": logs}
    else:
        options = {"address": address}
    try:
        _join(ray, address, options)
        yield
    finally:
        ray.shutdown()
        if logs is not None:
            shutil.rmtree(logs, ignore_errors=True)  # Ray never clears up; its last process may be writing still


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(log_to_driver=False, logging_level="WARNING", **options)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--ray {address}: expected `local` or the address of a running cluster ({str(error).splitlines()[0]})"
        ) from error


def _find_reason(error: BaseException) -> str:
    """The last line of Ray's report that says something: the exception that the actor raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
