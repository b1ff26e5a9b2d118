"""What a step holds in the memory of one device, whether that fits, and what to change where it does not."""

from __future__ import annotations

import bisect
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from cloc import factory
from cloc.config import Config
from cloc.device import find_device
from cloc.losses.pairs import Form
from cloc.plan.batch_shapes import Kind, kinds_of
from cloc.plan.dry_step import DryStep, dry_step

BUCKET = 500_000_000 * 4
"""Bytes that DeepSpeed takes under ZeRO 1 and 2 where its JSON names no `reduce_bucket_size`."""
TOLERANCE = 0.15
"""How far the plan may be off: only what exceeds a device by more is refused."""


MOST_DEVICES = 65_536
"""Most devices that a plan thinks of."""
Log = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes one device holds at the busiest moment of a step.

    Attributes:
        states: weights, moments, the teacher's weights, and DeepSpeed's copies and bucket.
        working: gradients, activations and what is in between.
    """

    states: int
    working: int

    @property
    def total(self) -> int:
        """Both."""
        return self.states + self.working


def silent(what: str) -> None:
    """For whoever wants no progress."""


def dry_steps(
    config: Config, kinds: Sequence[Kind], devices: int, count: bool = True, log: Log = silent
) -> Iterator[DryStep]:
    """The step of one device for every kind; without `count` only its memory, in half the time."""
    model_config = factory.make_model_config(config, factory.make_tokenizer(config))
    form, bf16 = Form(config.loss.form, config.loss.chunk), config.run.precision == "bf16"
    taught, recompute = config.loss.distillation > 0, config.train.activation_checkpointing
    for kind in kinds:
        images = max(kind.batch_size // devices, 1)
        log(f"one step{' of ' + kind.name if kind.name else ''} with {images:,} images a device, on fake tensors")
        shapes, attention = kind.shapes.resized(images), config.model.attention
        yield dry_step(model_config, shapes, form, bf16, recompute, attention, taught, devices, count)


def fewest_devices(
    config: Config, kinds: Sequence[Kind], zero: int, there: int, known: dict[int, int], log: Log = silent
) -> int | None:
    """The smallest number of devices on which a step fits; None where it fits on none.

    Args:
        config: the recipe.
        kinds: of its steps.
        zero: the ZeRO stage, 0 for plain torch.
        there: bytes of one device.
        known: numbers of devices to the bytes that one of them holds; what is worked out is added.
        log: called with what is being worked out.
    """
    whole = math.gcd(*(entry.batch_size for entry in config.data))
    numbers = [number for number in range(1, min(whole, MOST_DEVICES) + 1) if whole % number == 0]

    def fits(number: int) -> bool:
        if number not in known:
            steps = dry_steps(config, kinds, number, count=False, log=log)
            known[number] = max(memory_of(step, number, zero).total for step in steps)
        return known[number] <= there

    if fits(1):  # alone, no second copy of the gradients is held to sum them
        return 1
    if not fits(numbers[-1]):
        return None
    several = numbers[1:]
    return several[bisect.bisect_left(several, True, key=fits)]


def memory_of(step: DryStep, devices: int, zero: int) -> Memory:
    """Memory of one device, plain torch or ZeRO 0 (`zero` 0) to ZeRO 3.

    Plain torch on several devices flattens the gradients once more to sum them, which counts where it is the peak.
    Under ZeRO 3 the layer at work is gathered as well, which is left out.
    """
    whole, share = step.weights, -(-step.weights // devices)
    if zero == 0:
        at_step = whole + (whole if devices > 1 else 0)
        return Memory(3 * whole + step.teacher, max(step.working, at_step))
    states = 3 * share + (share if zero == 3 else whole)  # two moments, DeepSpeed's copy of the weights, the weights
    gradients = whole if zero == 1 else share
    return Memory(
        states + (BUCKET if zero < 3 else 0) + step.teacher,
        step.working - whole + gradients,
    )


def free_memory(device: str, processes: int) -> int:
    """Bytes of one accelerator, or the part of this machine's memory that each of its processes may take."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    return _physical_memory() // max(processes, 1)


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def what_helps(config: Config, devices: int, zero: int) -> str:
    """What to change, in the order of what it costs; only what is not done yet."""
    several = not config.alternates
    ways = [
        (config.run.precision == "fp32", "run.precision=bf16 (on an accelerator)"),
        (not config.train.activation_checkpointing, "train.activation_checkpointing=true"),
        (several, "a smaller data.N.batch_size with train.accumulation=K train.accumulation_mode=cached"),
        (not several, "a smaller data.N.batch_size or image_size"),
        (config.loss.distillation > 0, "loss.distillation=0"),
        (several and zero < 3, f"a higher ZeRO stage (train.deepspeed=configs/deepspeed/zero{max(zero + 1, 2)}.json)"),
        (True, "more devices" if devices == 1 else f"more than {devices} devices"),
    ]
    return ", ".join(text for useful, text in ways if useful)


def check_fits(config: Config, devices: int, zero: int, processes: int) -> list[str]:
    """Whether a run fits, before its first step; lines of warning where it hardly does.

    Args:
        config: of the run.
        devices: processes of the run.
        zero: the ZeRO stage, 0 for plain torch.
        processes: those of them on this machine.

    Raises:
        ValueError: it cannot fit; the message has the figures and says what to change.
    """
    device = find_device(config.run.device, "run.device")
    there = free_memory(device, processes)
    steps = dry_steps(config, kinds_of(config), devices, count=False)
    memory = max((memory_of(step, devices, zero) for step in steps), key=lambda one: one.total)
    figures = (
        f"{memory.total / 2**30:,.1f} GiB for a step ({memory.states / 2**30:,.1f} for weights and moments, "
        f"{memory.working / 2**30:,.1f} for gradients and activations), this {device} has {there / 2**30:,.1f} GiB "
        f"for each of {processes} process(es)"
    )
    if memory.total > there * (1 + TOLERANCE):
        raise ValueError(f"memory: the run needs {figures}; what helps: {what_helps(config, devices, zero)}")
    if memory.total > there * (1 - TOLERANCE):
        return [f"memory   may not suffice: {figures}; what helps: {what_helps(config, devices, zero)}"]
    return []
