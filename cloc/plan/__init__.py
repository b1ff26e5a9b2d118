"""`pretrain.py --plan`: what a recipe costs before it is paid for. Config in, lines out; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from cloc import comm
from cloc.config import Config
from cloc.device import find_device
from cloc.plan.batch_shapes import Kind, Shapes, kinds_of
from cloc.plan.dry_step import DryStep
from cloc.plan.known import with_known_shapes
from cloc.plan.memory import Log, Memory, dry_steps, fewest_devices, free_memory, memory_of, silent, what_helps
from cloc.plan.timed_step import Trial

MEASURED_FLOPS = 2e12
"""Work of one measured step on a CPU; the batch is made smaller to stay near it."""
MEASURED_STEPS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kind of step costs.

    Attributes:
        kind: the kind.
        step: of one device.
        images: of one device.
        forward, work: FLOP of one sample, forward alone and in all.
    """

    kind: Kind
    step: DryStep
    images: int
    forward: float
    work: float

    def samples(self, config: Config) -> float:
        """Samples of this kind in the whole run."""
        return config.steps * self.kind.share * self.kind.batch_size * config.train.accumulation


def loss_flops(config: Config, kind: Kind) -> float:
    """Of one sample: the contrast's matrices, both gradients included, against the global batch.

    The detector's own terms are part of the dry step.
    """
    if not isinstance(kind.shapes, Shapes):
        return 0.0
    rows = kind.batch_size * (config.train.accumulation if config.train.cached else 1)
    products = 2.0 * config.model.embed_dim * rows
    return 4 * products + 5 * products * kind.shapes.prompts**2


def costs_of(config: Config, kinds: Sequence[Kind], devices: int, log: Log = silent) -> list[Cost]:
    """What every kind of step costs one of the devices."""
    costs = []
    for kind, step in zip(kinds, dry_steps(config, kinds, devices, log=log), strict=True):
        images = max(kind.batch_size // devices, 1)
        again = step.forward_flops if config.train.cached else 0
        work = (step.flops + step.teacher_flops + again) / images + loss_flops(config, kind)
        costs.append(Cost(kind, step, images, step.forward_flops / images, work))
    return costs


def plan_lines(
    config: Config, devices: int, zero: int, measure: bool, memory: float | None = None, log: Log = silent
) -> Iterator[str]:
    """The plan, line by line; no network is needed.

    Args:
        config: the recipe.
        devices: to plan for.
        zero: the ZeRO stage, 0 for plain torch.
        measure: time a few steps on this machine.
        memory: GiB of one device; None for that of this machine.
        log: called with what is being worked out, for a progress line.

    Raises:
        ValueError: a batch does not divide among the devices, or the objective knows no ZeRO.
    """
    if devices < 1 or config.batch_size % devices:
        raise ValueError(f"--devices {devices}: expected a divisor of the batch of {config.batch_size:,} samples")
    if zero and config.alternates:
        raise ValueError(f"--zero {zero}: objective {config.objective} runs in plain torch only; leave --zero out")
    if memory is not None and not 0 < memory < 2**20:
        raise ValueError(f"--device-memory {memory}: expected GiB of one device, such as 80")
    config, notes = with_known_shapes(config)
    yield from notes
    log("reading what the batches look like")
    kinds = kinds_of(config)
    costs = costs_of(config, kinds, devices, log)
    counts = costs[0].step.parameters
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items())
    yield f"parameters  {sum(counts.values()) / 1e6:.1f} M: {parts}"
    for cost in costs:
        yield f"texts       {_named(cost)}{cost.kind.shapes.describe()} ({cost.kind.whence})"
    for cost in costs:
        yield _work_line(config, cost)
    yield from _memory_lines(config, costs, devices, zero, memory, log)
    samples = config.steps * config.batch_size * config.train.accumulation
    if len(costs) > 1:
        samples = round(sum(cost.samples(config) for cost in costs))
    total = sum(cost.samples(config) * cost.work for cost in costs)
    yield f"length      {config.steps:,} steps, {samples:,} samples, {total:.3g} FLOP"
    if not measure:
        yield "rate        not measured (--no-measure)"
        return
    yield from _time_lines(config, costs, devices, log)


def _named(cost: Cost) -> str:
    return f"{cost.kind.name}: " if cost.kind.name else ""


def _work_line(config: Config, cost: Cost) -> str:
    line = (
        f"work        {_named(cost)}{cost.forward / 1e9:,.2f} GFLOP forward, {cost.work / 1e9:,.2f} GFLOP trained, "
        f"of which contrast {loss_flops(config, cost.kind) / 1e9:,.3f}, a sample"
    )
    if cost.step.teacher_flops:
        line += f"; the teacher {cost.step.teacher_flops / cost.images / 1e9:,.2f} of it"
    if cost.kind.name:
        line += f"; {cost.kind.share:.0%} of the steps, {cost.kind.batch_size:,} samples each"
    return line


def _memory_lines(
    config: Config, costs: Sequence[Cost], devices: int, zero: int, gib: float | None, log: Log
) -> Iterator[str]:
    memories: list[tuple[Memory, Cost]] = [(memory_of(cost.step, devices, zero), cost) for cost in costs]
    memory, cost = max(memories, key=lambda one: one[0].total)
    stage = f"ZeRO {zero}" if zero else "plain torch or ZeRO 0"
    busiest = f" of {cost.kind.name}" if cost.kind.name else ""
    yield (
        f"memory      {memory.total / 2**30:,.2f} GiB a device, {devices} device(s), {stage}, {cost.images:,} images"
        f"{busiest} each: "
        f"states {memory.states / 2**30:,.2f}, gradients and activations {memory.working / 2**30:,.2f}"
    )
    device = find_device(config.run.device, "run.device")
    there, named = (free_memory(device, 1), f"this {device}") if gib is None else (int(gib * 2**30), "the device")
    if memory.total > there:
        yield (
            f"            does not fit the {there / 2**30:,.1f} GiB of {named}; what helps: "
            f"{what_helps(config, devices, zero)}"
        )
    kinds, known = [cost.kind for cost in costs], {devices: memory.total}
    fewest = fewest_devices(config, kinds, zero, there, known, log)
    yield (
        f"            fits {there / 2**30:,.1f} GiB each ({named}) from {fewest} device(s) on"
        if fewest is not None
        else f"            no number of devices that divides the batch fits {there / 2**30:,.1f} GiB each ({named})"
        + ("; ZeRO shares the states (--zero 1 to 3)" if zero < 3 and not config.alternates else "")
    )


def _time_lines(config: Config, costs: Sequence[Cost], devices: int, log: Log) -> Iterator[str]:
    days = 0.0
    for cost in costs:
        log(f"timing {MEASURED_STEPS + 1} steps{' of ' + cost.kind.name if cost.kind.name else ''} on this machine")
        rate, images, device = measured_rate(config, cost)
        days += cost.samples(config) / rate / 86400
        rate_line = f"{rate:,.2f} samples a second on one {device}, measured with batches of {images}"
        yield f"rate        {_named(cost)}{rate_line}"
    yield (
        f"time        {days:,.2f} device-days at {'these rates' if len(costs) > 1 else 'that rate'}, "
        f"{days / devices:,.2f} days on {devices} such devices if nothing is lost between them"
    )


def measured_rate(config: Config, cost: Cost) -> tuple[float, int, str]:
    """Samples a second of plain torch on this device, with made-up pixels; the batch and the device's name."""
    device = find_device(config.run.device, "run.device")
    images = max(cost.kind.batch_size // comm.world_size(), 1)
    if device == "cpu":
        images = max(1, min(images, int(MEASURED_FLOPS / cost.work)))
    trial = Trial.start(config, cost.kind.shapes.resized(images))
    seconds = [trial.step(step).whole for step in range(MEASURED_STEPS + 1)]
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU with {torch.get_num_threads()} thread(s)"
    again = cost.step.forward_flops / cost.step.flops if config.train.cached else 0  # the trial has no second pass
    return images * MEASURED_STEPS / sum(seconds[1:]) / (1 + again), images, name
