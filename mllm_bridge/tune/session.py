"""One tuning run with everything it needs: what it says, how it trains, what it hands over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cloc import comm
from cloc.box_text import BoxTextFormat
from cloc.data.dataloader import make_loader
from cloc.train import engine
from cloc.train.metric_logger import MetricLogger
from cloc.train.optim import learning_rate
from cloc.train.stepper import Stepper
from mllm_bridge.conversations.reading import Conversation, describe_skips
from mllm_bridge.tune.batches import BatchMaker, LengthOrder, TuneBatches
from mllm_bridge.tune.parts import find_trained_part
from mllm_bridge.tune.result import write_result
from mllm_bridge.tune.settings import TuneConfig
from mllm_bridge.tune.sources import RESULT
from mllm_bridge.tune.steppers import list_trained
from mllm_bridge.tune.trainee import Built, make_losses

PROBE = 4
"""Conversations on which the written folder is compared with what was trained."""


@dataclass
class Session:
    """A run that is ready to start.

    Attributes:
        config: of the run.
        host: folder of the host that is trained.
        box_format: how it writes boxes.
        conversations: all that it is trained on.
        skipped: entries of the files left out, by reason.
        built: the model.
        folder: of the run.
        first: step to start at.
    """

    config: TuneConfig
    host: Path
    box_format: BoxTextFormat
    conversations: tuple[Conversation, ...]
    skipped: Counter[str]
    built: Built
    folder: Path
    first: int

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.config.steps(len(self.conversations))

    @property
    def maker(self) -> BatchMaker:
        """Makes batches for this host."""
        built = self.built
        tokens, regions = self.config.train.max_tokens, built.trainee.regions is not None
        return BatchMaker(built.processor, self.box_format, regions, tokens, built.family)

    def lines(self, device: str) -> list[str]:
        """What is trained, on what, for how long."""
        sizes = Counter[str]()
        for name, parameter in list_trained(self.built.trainee).items():
            sizes[find_trained_part(name, self.built.where)] += parameter.numel()
        moving = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in sizes.items())
        total = sum(parameter.numel() for parameter in self.built.trainee.parameters())
        train = self.config.train
        batch, held = train.batch_size * train.accumulation, len(self.conversations)
        regions = ", with region tokens" if self.built.trainee.regions is not None else ""
        engine_name = "plain torch" if train.deepspeed == "none" else f"DeepSpeed ({Path(train.deepspeed).name})"
        return [
            f"run      {self.folder}" + (f", continued at step {self.first:,}" if self.first else ""),
            f"host     {self.host}, family {self.built.family.model_type}{regions}, places {self.box_format.name}",
            f"moves    {moving} of {total / 1e6:.2f} M parameters",
            f"length   {self.steps:,} steps of {batch} conversations, {self.steps * batch / held:.2f} passes over "
            f"{held:,}; left out of the files: {describe_skips(self.skipped)}",
            f"machine  {comm.world_size()} process(es) on {device}, {self.config.run.precision}, {engine_name}",
        ]

    def train(self, stepper: Stepper) -> tuple[int, Counter[str]]:
        """Train to the end or to a stop; the signal that stopped it (0: finished), and what was left out, by reason."""
        config, train = self.config, self.config.train
        order = LengthOrder(
            [conversation.words for conversation in self.conversations],
            [bool(conversation.images) for conversation in self.conversations],
            train.batch_size,
            config.run.seed,
        )
        steps, each = self.steps, train.accumulation
        share = comm.rank(), comm.world_size(), self.first * each, steps * each
        batches = TuneBatches(self.conversations, order, self.maker, *share)
        workers = config.run.workers
        if workers == "auto":
            workers = min(4, max(1, len(os.sched_getaffinity(0)) // comm.world_size() - 1))
        warmup = int(steps * config.optim.warmup_ratio)
        rate = partial(learning_rate, steps=steps, peak=config.optim.lr, warmup=warmup)
        state = {"world": comm.world_size(), "threads": torch.get_num_threads()}
        kept = train.checkpoint_every, train.keep_checkpoints
        plan = engine.Plan(self.folder, steps, self.first, each, config.run.seed, rate, *kept, state)
        meter = MetricLogger(self.folder, steps, self.first, train.log_every, not comm.is_main(), config.run.trackers)
        with closing(meter):
            stopped = engine.train(stepper, make_loader(batches, workers), make_losses(stepper), meter, plan)
        return stopped, meter.skipped

    def write_result(self, weights: Mapping[str, torch.Tensor], left_out: Counter[str]) -> list[str]:
        """Write the result and prove it; what there is to say."""
        train = self.config.train
        facts = {
            "steps": self.steps,
            "conversations": self.steps * train.accumulation * train.batch_size,
            "trained": sorted(weights),
            "skipped": dict(self.skipped + left_out),
            "config": self.config.model_dump(mode="json"),
        }
        out, probe = self.folder / RESULT, self.maker.make(self.conversations[:PROBE])
        found = write_result(self.config, self.host, weights, out, self.box_format, probe, facts)
        return [
            f"written: {out}; logits after loading it again differ by {found['reload']:.1g}",
            f"left out while training: {describe_skips(left_out)}",
        ]
