"""The one training loop. What varies is handed in: the stepper (plain torch or DeepSpeed) and the step's losses."""

from __future__ import annotations

import math
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from cloc import comm
from cloc.disk import removed_unless_done
from cloc.structures import Batch, LossReport
from cloc.train import checkpoint
from cloc.train.metric_logger import MetricLogger
from cloc.train.stepper import Stepper

Losses = Callable[[Batch, int], tuple[LossReport, torch.Tensor]]
"""(batch on the device, step) to the named losses and this rank's share of what is to be minimised."""
COUNTED = "num_"
"""Figures that begin so are counts: summed over the batches of a step, where the others are averaged."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes.

    Attributes:
        folder: the run's folder; checkpoints go into `checkpoints/`.
        steps: optimiser steps in all.
        first_step: where to start, after a resume.
        accumulation: batches a step.
        seed: decides the random state of every step.
        rate: step to base learning rate.
        checkpoint_every, keep_checkpoints: in steps; how many are kept.
        state: what a checkpoint says beside its step (config, threads, world size).
    """

    folder: Path
    steps: int
    first_step: int
    accumulation: int
    seed: int
    rate: Callable[[int], float]
    checkpoint_every: int
    keep_checkpoints: int
    state: dict


class Stop:
    """Hears SIGTERM and Ctrl-C, so that the loop saves and ends after the step it is in.

    Attributes:
        asked: the signal that came last, 0 where none did.
    """

    def __enter__(self) -> Stop:
        self.asked = 0
        self._before = {name: signal.signal(name, self._ask) for name in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number


def train(stepper: Stepper, batches: Iterable[Batch], losses: Losses, meter: MetricLogger, plan: Plan) -> int:
    """Train from `plan.first_step` to `plan.steps`.

    Returns:
        0 when all steps are done, else the signal that asked to stop (SIGTERM where another rank heard it); then a
        checkpoint was saved.

    Raises:
        FloatingPointError: a loss or gradient is not finite; the message names the step and the samples.
        OSError: a file of the run cannot be written; the checkpoints that were there are whole.
    """
    with Stop() as stop:
        stream = iter(batches)
        for step in range(plan.first_step, plan.steps):
            torch.manual_seed(plan.seed * 1_000_003 + step)
            figures: dict[str, float] = defaultdict(float)
            skipped, samples, stopping = Counter[str](), 0.0, False
            for _ in range(plan.accumulation):
                batch = next(stream)
                report, share = losses(batch.to(stepper.device), step)
                stepper.backward(share)
                local, stopping = reduce_figures(report, share, stop.asked > 0, stepper.device)
                check_figures(local, report, batch, step)
                for name, value in local.items():
                    figures[name] += value if name.startswith(COUNTED) else value / plan.accumulation
                samples += report.counts["images"]
                skipped.update(comm.add_counters(batch.skipped, stepper.device))
            rate = plan.rate(step)
            norm = stepper.step(rate, step)
            if not math.isfinite(norm):
                raise FloatingPointError(f"step {step}: the gradient norm is {norm}; lower optim.lr")
            meter.step(step, {**figures, "learning_rate": rate, "gradient_norm": norm}, int(samples), skipped)
            done = step + 1
            if done == plan.steps or done % plan.checkpoint_every == 0 or stopping:
                save(stepper, plan, done)
            if stopping and done < plan.steps:
                return stop.asked or signal.SIGTERM
    return 0


def reduce_figures(
    report: LossReport, share: torch.Tensor, stop: bool, device: torch.device
) -> tuple[dict[str, float], bool]:
    """Sum what is logged over the ranks, in one exchange; also whether any rank was asked to stop."""
    names = [*report.terms, *report.gauges]
    values = [float(value.detach()) for value in (*report.terms.values(), *report.gauges.values())]
    *summed, loss, stops = comm.sum_over_ranks([*values, float(share.detach()), float(stop)], device)
    counts = {f"{COUNTED}{name}": float(count) for name, count in report.counts.items()}
    return {"loss": loss, **dict(zip(names, summed, strict=True)), **counts}, stops > 0


def check_figures(figures: Mapping[str, float], report: LossReport, batch: Batch, step: int) -> None:
    """Stop a run whose losses have left the numbers, or whose batch holds no usable sample on any rank."""
    if report.counts["images"] == 0:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(batch.skipped.items()))
        raise ValueError(f"step {step}: not one usable sample in the whole batch ({reasons}); look at the data")
    wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
    if wrong:
        shown = ", ".join(batch.keys[:8]) + (", ..." if len(batch.keys) > 8 else "")
        raise FloatingPointError(
            f"step {step}: {wrong} is not finite; rank {comm.rank()} held {len(batch.keys)} samples: {shown}. "
            "Lower optim.lr or look at these samples; the last checkpoint is from before"
        )


def save(stepper: Stepper, plan: Plan, done: int) -> None:
    """Write the checkpoint after `done` steps; every rank calls it.

    Raises:
        OSError: on every rank, where the disk is full or cannot be written; what was half written is gone.
    """
    folder = plan.folder / "checkpoints"
    temporary = checkpoint.part(folder, done)
    comm.on_main(lambda: checkpoint.begin(folder, done))
    with removed_unless_done(temporary) if comm.is_main() else nullcontext():
        stepper.save(temporary)
        comm.on_main(lambda: checkpoint.finish(temporary, {"step": done, **plan.state}, plan.keep_checkpoints))
