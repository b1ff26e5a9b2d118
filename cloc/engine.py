"""The one training loop. What varies is handed in: the stepper (plain torch or DeepSpeed) and the step's losses."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from cloc import checkpoint, comm
from cloc.metering import Meter
from cloc.stepper import Stepper
from cloc.structures import Batch, LossReport

Losses = Callable[[Batch, int], tuple[LossReport, torch.Tensor]]
"""(batch on the device, step) to the named losses and this rank's share of what is to be minimised."""


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
    """Becomes true at SIGTERM or Ctrl-C, so that the loop saves and ends after the step it is in."""

    def __init__(self) -> None:
        self.asked = False
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def train(stepper: Stepper, batches: Iterable[Batch], losses: Losses, meter: Meter, plan: Plan) -> bool:
    """Train from `plan.first_step` to `plan.steps`.

    Returns:
        True when all steps are done, False when it was asked to stop; then a checkpoint was saved.

    Raises:
        FloatingPointError: a loss or gradient is not finite; the message names the step and the samples.
    """
    stop, stream = Stop(), iter(batches)
    for step in range(plan.first_step, plan.steps):
        torch.manual_seed(plan.seed * 1_000_003 + step)
        figures: dict[str, float] = {}
        samples, skipped = 0.0, {}
        for _ in range(plan.accumulation):
            batch = next(stream)
            report, share = losses(batch.to(stepper.device), step)
            stepper.backward(share)
            local, samples_here, stopping = reduce_figures(report, share, stop.asked, stepper.device)
            check_finite(local, batch, step)
            for name, value in local.items():
                figures[name] = figures.get(name, 0.0) + value / plan.accumulation
            samples += samples_here
            for reason, count in batch.skipped.items():
                skipped[reason] = skipped.get(reason, 0) + count
        rate = plan.rate(step)
        figures |= {"learning_rate": rate, "gradient_norm": stepper.step(rate)}
        if not math.isfinite(figures["gradient_norm"]):
            raise FloatingPointError(f"step {step}: the gradient norm is {figures['gradient_norm']}; lower optim.lr")
        meter.step(step, figures, int(samples), skipped)
        done = step + 1
        if done == plan.steps or done % plan.checkpoint_every == 0 or stopping:
            save(stepper, plan, done)
        if stopping and done < plan.steps:
            return False
    return True


def reduce_figures(
    report: LossReport, share: torch.Tensor, stop: bool, device: torch.device
) -> tuple[dict[str, float], float, bool]:
    """Sum what is logged over the ranks, in one exchange; also whether any rank was asked to stop."""
    names = [*report.terms, *report.gauges]
    values = [float(value.detach()) for value in (*report.terms.values(), *report.gauges.values())]
    *summed, loss, stops = comm.sum_over_ranks([*values, float(share.detach()), float(stop)], device)
    figures = {
        "loss": loss,
        **dict(zip(names, summed, strict=True)),
        **{f"num_{k}": v for k, v in report.counts.items()},
    }
    return figures, report.counts["images"], stops > 0


def check_finite(figures: dict[str, float], batch: Batch, step: int) -> None:
    """Stop a run whose losses have left the numbers."""
    wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
    if wrong:
        shown = ", ".join(batch.keys[:8]) + (", ..." if len(batch.keys) > 8 else "")
        raise FloatingPointError(
            f"step {step}: {wrong} is not finite; rank {comm.rank()} held {len(batch.keys)} samples: {shown}. "
            "Lower optim.lr or look at these samples; the last checkpoint is from before"
        )


def save(stepper: Stepper, plan: Plan, done: int) -> None:
    """Write the checkpoint after `done` steps; every rank calls it."""
    folder = plan.folder / "checkpoints"
    if comm.is_main():
        checkpoint.begin(folder, done)
    comm.barrier()
    temporary = folder / f".step-{done}.part"
    stepper.save(temporary)
    if comm.is_main():
        checkpoint.finish(temporary, {"step": done, **plan.state}, plan.keep_checkpoints)
    comm.barrier()
