"""What a tuning run hands over: one folder that stock transformers loads, proven by loading it again.

Adapters are merged into the weights, or lie beside them in the form that transformers picks up by itself. The region
module and the convention for boxes lie in files of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from cloc.box_text import BoxTextFormat
from cloc.disk import atomic_dir
from cloc.files import write_json
from mllm_bridge.tune.batches import ConversationBatch
from mllm_bridge.tune.settings import TuneConfig
from mllm_bridge.tune.sources import CARD
from mllm_bridge.tune.steppers import Moving
from mllm_bridge.tune.trainee import Built, Trainee, build, cast
from mllm_bridge.weights.folders import copy_small_files, read_json
from mllm_bridge.weights.stored import write_level

TOLERANCE = 1e-5
"""Largest difference of logits, over the largest logit where that is above one."""


class ReloadError(ValueError):
    """The folder does not give back what was trained."""


def write_result(
    config: TuneConfig,
    host: Path,
    weights: Mapping[str, torch.Tensor],
    out: Path,
    box_format: BoxTextFormat,
    batch: ConversationBatch,
    facts: Mapping[str, Any],
) -> dict[str, float]:
    """Write a host's folder and prove it.

    Args:
        config: of the run.
        host: the host that was trained.
        weights: the weights that moved, by their name in the `Trainee`.
        out: folder to write; it appears whole or not at all.
        box_format: how this host writes boxes.
        batch: a few conversations, on which logits are compared.
        facts: what the card says of the run.

    Returns:
        The largest differences of logits: `merge` (adapters beside against inside), `rounding` (float32 against the
        type on disk) and `reload` (in memory against loaded again).

    Raises:
        ReloadError: merging or loading again changes the logits; no folder appears.
    """
    built = build(config, host)
    Moving(built.trainee).load_state_dict(weights)
    trained = _logits(built.trainee, batch)
    found = {"merge": 0.0}
    beside = built.wrapped is not None and config.result.form == "adapters"
    with atomic_dir(out) as folder:
        if built.wrapped is not None and not beside:
            built.wrapped.merge_and_unload()
            found["merge"] = _difference(trained, _logits(built.trainee, batch))
        cast(built.trainee.host, built.dtype)
        expected = _logits(built.trainee, batch)
        found["rounding"] = _difference(trained, expected)
        if beside:
            built.wrapped.save_pretrained(folder)
            _name_no_base(folder)
            built.wrapped.unload()
        built.trainee.host.save_pretrained(folder)
        vision = built.trainee.host.config.vision_config.model_type
        write_level(
            folder, vision, [prefix for tower in built.family.towers for prefix in built.family.prefixes(tower)]
        )
        _write_around(folder, built, host, box_format)
        found["reload"] = _difference(expected, _logits(_reloaded(folder, built), batch))
        _require(found, out)
        write_json(folder / CARD, {"schema": 1, **facts, "logits": found})
    return found


def _name_no_base(folder: Path) -> None:
    """The adapters lie beside their base: the path of the folder that was trained is no part of the result."""
    path = folder / "adapter_config.json"
    write_json(path, {**read_json(path), "base_model_name_or_path": None})
    (folder / "README.md").unlink(missing_ok=True)  # peft's card names that path too


def _write_around(folder: Path, built: Built, host: Path, box_format: BoxTextFormat) -> None:
    built.processor.save_pretrained(folder)
    built.processor.image_processor.to_json_file(folder / "preprocessor_config.json")
    if isinstance(built.processor.chat_template, str):
        (folder / "chat_template.jinja").write_text(built.processor.chat_template, encoding="utf-8")
    copy_small_files(host, folder, ())
    box_format.save(folder)
    if built.trainee.regions is not None:
        built.trainee.regions.save(folder)


def _reloaded(folder: Path, built: Built) -> Trainee:
    """The folder as any program loads it, with its region module where it has one."""
    from mllm_bridge.regions.host import find_region_token
    from mllm_bridge.regions.module import RegionModule

    host = AutoModelForImageTextToText.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    regions = None if built.trainee.regions is None else RegionModule.load(folder)
    return Trainee(host, regions, host.get_submodule(built.family.tower_path), find_region_token(built.processor))


@torch.no_grad()
def _logits(trainee: Trainee, batch: ConversationBatch) -> torch.Tensor:
    """(B, L, V) on the CPU, in evaluation mode."""
    dtype = trainee.host.dtype
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.inputs.items()}
    trainee.eval()
    return trainee.logits(batch.region_boxes, batch.region_image, **inputs).float()


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max().clamp(min=1))


def _require(found: Mapping[str, float], out: Path) -> None:
    wrong = [f"{name} {found[name]:.3g}" for name in ("merge", "reload") if not found[name] <= TOLERANCE]
    if wrong:
        raise ReloadError(
            f"{out}: the logits differ after writing ({', '.join(wrong)}; at most {TOLERANCE:g} is allowed), so no "
            "folder was made; the run's last checkpoint holds what was trained"
        )
