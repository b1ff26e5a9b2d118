"""Shards to batches: the run's sources, its rendered worlds, and what a rank gets for each step."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cloc import comm
from cloc.config import Config
from cloc.data.alternation import Alternation
from cloc.data.loader import Source, StepBatches, check_bytes, check_readable, check_sources
from cloc.data.prompts import PromptSampler
from cloc.data.tables import open_samples
from cloc.data_root import find_data_root
from cloc.factory import concepts
from cloc.factory.model import make_tower_config
from cloc.scenes import WORLD_CARD, ensure_scenes, make_preset
from cloc.towers.tower import image_side, patch_grid

SCENES = "scenes"
"""The reserved word for the quickstart's rendered world in `data.path`."""
DETECTION_SCENES = "detection_scenes"
"""Its sibling for detection, with a folder: `detection_scenes/pairs`."""


def make_sources(config: Config) -> list[Source]:
    """Open the shards; the rendered world is made by the main rank where it is missing.

    Raises:
        ValueError: a path holds no shards, no sample of a set can be used, or (with `run.verify_data`) a shard has
            other bytes than its card says.
    """
    words = {Path(entry.path).parts[:1] for entry in config.data}
    for word, world in ((SCENES, "quickstart"), (DETECTION_SCENES, "detection")):
        if (word,) in words and comm.is_main() and not (find_data_root(must_exist=False) / word / WORLD_CARD).is_file():
            ensure_scenes(find_data_root(must_exist=False) / word, make_preset(world))
    comm.barrier()
    paths = [_rendered(entry.path) for entry in config.data]
    sources = [
        Source(open_samples(path, entry.kind), entry.batch_size) for path, entry in zip(paths, config.data, strict=True)
    ]
    check_sources(sources, comm.world_size())
    check_readable(sources)
    if config.run.verify_data and comm.is_main():
        check_bytes(sources)
    comm.barrier()
    return sources


def _rendered(path: str) -> Path | str:
    """Where the shards of a path lie: a reserved word stands for a rendered world under the data root."""
    if path == SCENES:
        return find_data_root(must_exist=False) / SCENES / "train"
    return find_data_root(must_exist=False) / path if Path(path).parts[:1] == (DETECTION_SCENES,) else path


def make_batches(
    config: Config, sources: list[Source], tokenizer: PreTrainedTokenizerBase, first_step: int
) -> StepBatches | Alternation:
    """The batches of this rank from an optimiser step on."""
    if config.alternates:
        return concepts.make_alternation(
            config, sources, tokenizer, first_step, make_tower_config(config), make_prompts(config)
        )
    each = config.train.accumulation
    return StepBatches(
        sources,
        tokenizer,
        image_side(make_tower_config(config)),
        config.loss.regions_per_image if config.objective != "clip" else 0,
        config.run.seed,
        comm.rank(),
        comm.world_size(),
        first_step * each,
        config.steps * each,
        prompts=make_prompts(config),
    )


def num_samples(config: Config, sources: list[Source]) -> int:
    """Samples that the whole run takes, over all ranks."""
    if config.alternates:
        return concepts.alternating_samples(config, sources)
    return config.steps * config.batch_size * config.train.accumulation


def make_prompts(config: Config) -> PromptSampler | None:
    """What regions are asked with in training; None where it is their box alone."""
    kinds = config.model.prompter.prompts
    if kinds == ("box",) or config.objective not in ("cloc", "joint"):
        return None
    return PromptSampler(kinds, patch_grid(make_tower_config(config)))


def num_workers(config: Config) -> int:
    """Loading processes of this rank."""
    if config.run.workers != "auto":
        return config.run.workers
    return min(4, max(1, len(os.sched_getaffinity(0)) // comm.world_size() - 1))
