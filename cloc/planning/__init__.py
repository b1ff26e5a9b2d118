"""`pretrain.py --plan`: what a recipe costs before it is paid for. Config in, lines out; nothing is trained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cloc import build, comm
from cloc.config import Config
from cloc.data.loader import Source
from cloc.data.scenes import WORLD_CARD
from cloc.losses.pairs import Form
from cloc.planning.dry_step import DryStep, Shapes, dry_step
from cloc.planning.trial import Trial

SAMPLES = 64
"""Samples that are read to see how long texts are."""
ASSUMED_CAPTION, ASSUMED_PHRASE = 40, 8
"""Tokens where there is no data yet: VESL's captions have 36 to 45 (CLOC Table 1), phrases 2 to 8."""
BUCKET = 500_000_000 * 4
"""Bytes that DeepSpeed takes under ZeRO 1 and 2 where its JSON names no `reduce_bucket_size`."""
MEASURED_FLOPS = 2e12
"""Work of one measured step on a CPU; the batch is made smaller to stay near it."""
MEASURED_STEPS = 3


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes one device holds at the busiest moment of a step.

    Attributes:
        states: weights, moments and DeepSpeed's copies and bucket.
        working: gradients, activations and what is in between.
    """

    states: int
    working: int

    @property
    def total(self) -> int:
        """Both."""
        return self.states + self.working


def text_lengths(config: Config) -> tuple[Shapes, str]:
    """How long the texts of a batch of `SAMPLES` are, and where that is known from."""
    prompts = 0 if config.objective == "clip" else config.loss.regions_per_image
    context = config.model.text.context
    assumed = Shapes(SAMPLES, min(ASSUMED_CAPTION, context), prompts, SAMPLES * prompts, min(ASSUMED_PHRASE, context))
    missing = any(entry.path == build.SCENES for entry in config.data)
    if missing and not (build.data_root() / build.SCENES / WORLD_CARD).is_file():
        return assumed, "assumed, the rendered scenes are not made yet"
    try:
        sources = build.make_sources(config)
    except ValueError as error:
        return assumed, f"assumed, since there is no data yet ({str(error).splitlines()[0]})"
    few = [Source(s.shards, min(s.batch_size, max(SAMPLES // len(sources), 1), s.shards.num_samples)) for s in sources]
    batches = build.make_batches(config, few, build.make_tokenizer(config), 0)
    batch = batches.batch(0)
    seen = max(len(batch.pixel_values), 1)
    phrases = -(-len(batch.phrase_ids) * SAMPLES // seen)
    lengths = max(batch.caption_ids.shape[1], 2), max(batch.phrase_ids.shape[1], 2)
    return Shapes(SAMPLES, lengths[0], prompts, phrases, lengths[1]), f"from {seen} samples of the data"


def memory_of(step: DryStep, devices: int, zero: int) -> Memory:
    """Memory of one device, plain torch or ZeRO 0 (`zero` 0) to ZeRO 3.

    Plain torch on several devices flattens the gradients once more to sum them, which counts where it is the peak.
    Under ZeRO 3 the layer at work is gathered as well, which is left out.
    """
    whole, share = step.weights, -(-step.weights // devices)
    if zero == 0:
        at_step = whole + (whole if devices > 1 else 0)
        return Memory(3 * whole, max(step.working, at_step))
    states = 3 * share + (share if zero == 3 else whole)  # two moments, DeepSpeed's copy of the weights, the weights
    gradients = whole if zero == 1 else share
    return Memory(states + (BUCKET if zero < 3 else 0), step.working - whole + gradients)


def loss_flops(config: Config) -> float:
    """Of one sample: the contrast's matrices, both gradients included, against the global batch."""
    rows = config.batch_size * (config.train.accumulation if config.train.cached else 1)
    regions = 0 if config.objective == "clip" else config.loss.regions_per_image
    products = 2.0 * config.model.embed_dim * rows
    return 4 * products + 5 * products * regions * regions


def plan_lines(config: Config, devices: int, zero: int, measure: bool) -> Iterator[str]:
    """The plan, line by line.

    Raises:
        ValueError: the objective is not planned for, or the batch does not divide among the devices.
    """
    if config.alternates:
        raise ValueError(f"--plan: objective {config.objective} is not planned for; expected clip or cloc")
    if devices < 1 or config.batch_size % devices:
        raise ValueError(f"--devices {devices}: expected a divisor of the batch of {config.batch_size:,} samples")
    seen, whence = text_lengths(config)
    shapes = _resized(seen, config.batch_size // devices)
    form, bf16 = Form(config.loss.form, config.loss.chunk), config.run.precision == "bf16"
    model_config = build.make_model_config(config, build.make_tokenizer(config))
    step = dry_step(model_config, shapes, form, bf16, config.train.activation_checkpointing, config.model.attention)
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in step.parameters.items())
    yield f"parameters  {sum(step.parameters.values()) / 1e6:.1f} M: {parts}"
    tokens = f"captions of {seen.caption_tokens} tokens"
    if seen.prompts:
        tokens += f", {seen.prompts} regions an image, {seen.phrases / seen.images:.2f} phrases of {seen.phrase_tokens}"
    yield f"texts       {tokens} ({whence})"
    again = step.forward_flops if config.train.cached else 0
    work = (step.flops + again) / shapes.images + loss_flops(config)
    yield (
        f"work        {step.forward_flops / shapes.images / 1e9:,.2f} GFLOP forward, {work / 1e9:,.2f} GFLOP trained, "
        f"of which contrast {loss_flops(config) / 1e9:,.3f}, a sample"
    )
    yield from _memory_lines(config, memory_of(step, devices, zero), devices, zero, shapes.images)
    samples = config.steps * config.batch_size * config.train.accumulation
    yield f"length      {config.steps:,} steps, {samples:,} samples, {work * samples:.3g} FLOP"
    if not measure:
        yield "rate        not measured (--no-measure)"
        return
    rate, images, device = measured_rate(config, seen, work)
    rate /= 1 + again / step.flops
    days = samples / rate / 86400
    yield f"rate        {rate:,.2f} samples a second on one {device}, measured with batches of {images}"
    yield (
        f"time        {days:,.2f} device-days at that rate, {days / devices:,.2f} days on {devices} such devices "
        "if nothing is lost between them"
    )


def _memory_lines(config: Config, memory: Memory, devices: int, zero: int, images: int) -> Iterator[str]:
    kind = f"ZeRO {zero}" if zero else "plain torch or ZeRO 0"
    yield (
        f"memory      {memory.total / 2**30:,.2f} GiB a device, {devices} device(s), {kind}, {images:,} images each: "
        f"states {memory.states / 2**30:,.2f}, gradients and activations {memory.working / 2**30:,.2f}"
    )
    device = build.find_device(config)
    there = torch.cuda.mem_get_info()[1] if device == "cuda" else _physical_memory() // min(devices, 1)
    if memory.total > there:
        yield (
            f"            does not fit the {there / 2**30:,.1f} GiB of this {device}; what helps: "
            "train.activation_checkpointing=true, a smaller data.N.batch_size with train.accumulation and "
            "accumulation_mode=cached, run.precision=bf16, more --devices, a higher --zero"
        )


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resized(shapes: Shapes, images: int) -> Shapes:
    phrases = max(-(-shapes.phrases * images // shapes.images), 1)
    return Shapes(images, shapes.caption_tokens, shapes.prompts, phrases, shapes.phrase_tokens)


def measured_rate(config: Config, seen: Shapes, work: float) -> tuple[float, int, str]:
    """Samples a second of plain torch on this device, with made-up pixels; the batch and the device's name."""
    device = build.find_device(config)
    images = config.batch_size // comm.world_size()
    if device == "cpu":
        images = max(1, min(images, int(MEASURED_FLOPS / work)))
    trial = Trial.start(config, _resized(seen, images))
    seconds = [trial.step(step).whole for step in range(MEASURED_STEPS + 1)]
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU with {torch.get_num_threads()} thread(s)"
    return images * MEASURED_STEPS / sum(seconds[1:]), images, name
