"""What a run says of itself before it starts, and for its model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cloc import comm
from cloc.config import Config
from cloc.data.loader import Source
from cloc.towers.tower import image_side

SMALL_MODEL, SMALL_BATCH = 10_000_000, 1_000_000
"""Fewer parameters than this, on fewer pixels a process, take under about 4 GiB: such a run is not planned first."""

RENDERED = " - rendered scenes: they show that the method works and say nothing about real photographs"


def check_regions(config: Config, sources: Sequence[Source]) -> None:
    """Refuse region training on data without regions, before a model is built.

    Raises:
        ValueError: all cards say that there is no region to train on.
    """
    counts = [(source.shards.card or {}).get("counts", {}).get("regions") for source in sources]
    if config.objective != "clip" and all(count == 0 for count in counts):
        raise ValueError(f"objective {config.objective}: all cards say 0 regions; use objective=clip or add regions")


def check_heads(config: Config) -> None:
    """What a run makes it trains, unless `model.source` brings it trained: an export has no head of noise.

    Raises:
        ValueError: something would be left untrained; all of it is named.
    """
    loss, detection = config.loss, config.loss.detection
    kinds = {entry.kind for entry in config.data if entry.weight != 0}
    wrong = []
    if config.objective != "detclip" and not loss.image_text and not loss.distillation:
        wrong.append("image embeddings need loss.image_text above 0")
    if config.objective in ("cloc", "joint"):
        needs = "objective=clip has no Prompter" if config.objective == "cloc" else "objective=detclip has no Prompter"
        if "regions" not in kinds:
            wrong.append(f"the Prompter needs a source of kind regions; {needs}")
        if not loss.region_text:
            wrong.append(f"the Prompter's embeddings need loss.region_text above 0; {needs}")
    if config.alternates:
        if "detection" not in kinds:
            wrong.append("boxes need a source of kind detection")
        for name in ("alignment", "giou", "centerness"):
            if not getattr(detection, name):
                wrong.append(f"the detector needs loss.detection.{name} above 0")
    if wrong and config.model.source is None:
        raise ValueError(
            f"objective {config.objective} would leave untrained what it makes: {'; '.join(wrong)}; or start from an "
            "export that has it (model.source)"
        )


def check_weights_fit(config: Config) -> None:
    """Refuse a model whose weights alone are larger than this machine, before any of them is made.

    By arithmetic on the towers that start from nothing; what a run needs in all is looked at later.

    Raises:
        ValueError: with the figures.
    """
    vision, text, detector = config.model.vision, config.model.text, config.model.detector
    blocks = []
    if vision.source is None and vision.timm is None:
        depths = vision.depths or (vision.layers,)
        blocks += [(depth, vision.width * 2**stage, vision.mlp_ratio) for stage, depth in enumerate(depths)]
    if text.source is None:
        blocks.append((text.layers, text.width, text.mlp_ratio))
    parameters = sum(depth * (4 + 2 * ratio) * width**2 for depth, width, ratio in blocks)
    if config.alternates:
        parameters += 9 * detector.width**2 * detector.num_convs * 2
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * parameters > there:
        raise ValueError(
            f"model: about {parameters / 1e9:,.1f} billion parameters take {4 * parameters / 2**30:,.0f} GiB, this "
            f"machine has {there / 2**30:,.0f}; lower width and layers of model.vision, model.text or model.detector"
        )


def check_disk(config: Config, model: nn.Module, runs: Path) -> None:
    """Refuse a run whose checkpoints do not fit, before a folder is made.

    Args:
        config: of the run.
        model: the model that is trained.
        runs: folder of runs; where it is yet to be made, the nearest folder above it is looked at.

    Raises:
        ValueError: the disk that holds `runs` has no room for the checkpoints.
    """
    place = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    needed, free = disk_bytes(config, model), shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"disk of {runs}: checkpoints and export need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "make room, lower train.keep_checkpoints, or give another --runs"
        )


def wants_plan(config: Config, model: PreTrainedModel) -> bool:
    """Whether a run is so large that its memory is looked at before it starts."""
    own = image_side(model.config.vision_config.tower)
    sizes = [own if entry.image_size is None else entry.image_size for entry in config.data]
    sides = [size if isinstance(size, int) else max(long for _, long in size) for size in sizes]
    pixels = sum(entry.batch_size * side**2 for entry, side in zip(config.data, sides, strict=True))
    parameters = sum(p.numel() for p in model.parameters())
    return parameters >= SMALL_MODEL or pixels >= SMALL_BATCH * comm.world_size()


def disk_bytes(config: Config, model: nn.Module) -> int:
    """What a run may take on disk: weights and two moments a checkpoint, one more while it is written, two exports."""
    return sum(p.numel() for p in model.parameters()) * 4 * (3 * (config.train.keep_checkpoints + 1) + 2)


def lines(
    config: Config,
    model: nn.Module,
    sources: Sequence[Source],
    notes: Sequence[str],
    folder: Path,
    first_step: int,
    device: str,
    deepspeed: Path | None,
    samples: int,
) -> list[str]:
    """A few lines: what is trained, on what, and what it costs; `samples` are those of the whole run."""
    parameters = sum(p.numel() for p in model.parameters())
    each = "" if config.alternates else f" of {config.batch_size * config.train.accumulation}"
    held = sum(source.shards.num_samples for source in sources)
    return [
        f"run      {folder}" + (f", continued at step {first_step:,}" if first_step else ""),
        f"train    objective {config.objective}, {parameters / 1e6:.1f} M parameters ({'; '.join(notes)})",
        f"data     {held:,} samples in {', '.join(str(s.shards.shards[0].parent) for s in sources)}",
        f"length   {config.steps:,} steps{each} = {samples:,} samples, {samples / held:.2f} passes over them",
        f"machine  {comm.world_size()} process(es) on {device}, {config.run.precision}, "
        f"{f'DeepSpeed ({deepspeed.name})' if deepspeed else 'plain torch'}",
        f"cost     weights, gradients and moments {parameters * 16 / 2**20:,.0f} MiB a process; "
        f"disk up to {disk_bytes(config, model) / 2**20:,.0f} MiB",
    ]


def facts(config: Config, samples: int) -> dict[str, Any]:
    """What the export's card says of the run; `samples` are those that it took in all."""
    head = {"objective": config.objective, "steps": config.steps, "samples": samples}
    return {**head, "seed": config.run.seed, "licence": config.export.licence}


def data_facts(config: Config, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What the export's card says of each source."""
    lines = []
    for entry, source in zip(config.data, sources, strict=True):
        card = source.shards.card or {}
        rendered = bool(card.get("rendered")) or entry.path == "scenes"
        lines.append(
            {
                "path": entry.path,
                "name": card.get("name", Path(entry.path).name),
                "kind": entry.kind,
                "samples": source.shards.num_samples,
                "rendered": rendered,
                "note": RENDERED if rendered else "",
            }
        )
    return lines


def skip_lines(skipped: Mapping[str, int], taken: int, sources: Sequence[Source]) -> list[str]:
    """What was left out while training, by reason; the same sample counts whenever it was taken."""
    if not any(skipped.values()):
        return []
    held = sum(source.shards.num_samples for source in sources)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(skipped.items()))
    return [f"left out, in {taken:,} samples taken from {held:,} ({taken / held:.2f} passes): {reasons}"]
