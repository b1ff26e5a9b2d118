"""The proof after a swap: the folder holds our tower, feeds it as it was trained, runs and survives save and reload."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoImageProcessor, ProcessorMixin

from mllm_bridge.encoder import Encoder
from mllm_bridge.hosts import family_of
from mllm_bridge.hosts.family import FeatureLayer, HostFamily
from mllm_bridge.hosts.loading import load_processor
from mllm_bridge.swap.checks import Check, check_plan, equal, require
from mllm_bridge.swap.running import check_places, check_running
from mllm_bridge.weights.folders import read_json
from mllm_bridge.weights.stored import FolderWeights, find_part, stored_hash
from mllm_bridge.weights.tensorfile import same_bytes

SHOWN = 2**30
"""Bytes to compare from which on a progress bar is shown."""


def verify(
    folder: Path,
    encoder: Encoder,
    *,
    host: FolderWeights | None = None,
    keep_projector: bool = False,
    full: bool = False,
    feature_layer: FeatureLayer = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Check]:
    """Prove that a host folder holds this tower and agrees with it.

    Args:
        folder: the host with the tower in it.
        encoder: the tower that ought to be in it, as it goes in (`fitting.fit`).
        host: the weights of the host that it was made from; then everything but tower and projector has to be
            unchanged.
        keep_projector: with `host`, the projector has to be unchanged too.
        full: load the whole host and run it as well; else no weight of the language model is loaded, and the proof
            is one of keys, shapes, hashes, token counts and processor.
        feature_layer: the hidden state that it ought to read; None takes the config's word.
        device: where the host runs.
        say: takes one line for each stage.

    Returns:
        Every check; all have passed.

    Raises:
        VerifyError: at least one check failed; the message names each.
        ValueError: the folder cannot be read at all.
    """
    config = read_json(folder / "config.json")
    family = family_of(config, str(folder))
    layer = family.feature_layer(config) if feature_layer is None else feature_layer
    processor = load_processor(folder)
    say("verify: config and processor")
    checks = check_plan(family, config, processor, encoder, layer)
    checks += _same_image_processor_in_both_files(folder, processor)
    require(checks, f"verify {folder}")
    say("verify: weights, tensor by tensor")
    weights = FolderWeights.open(folder)
    checks += [_check_tower_weights(weights, family, name, encoder) for name in family.towers]
    if host is not None:
        checks += _check_untouched(weights, host, family, keep_projector)
    require(checks, f"verify {folder}")
    say("verify: every key and shape has its place")
    checks.append(check_places(folder, family))
    if full:
        say("verify: the host runs")
        checks += check_running(folder, family, encoder, processor, layer, device)
    require(checks, f"verify {folder}")
    return checks


def _same_image_processor_in_both_files(folder: Path, processor: ProcessorMixin) -> list[Check]:
    """Old readers look into preprocessor_config.json, new ones into processor_config.json: both say the same."""
    ours = _plain(processor.image_processor)
    alone = _plain(AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    differing = sorted(key for key in ours if alone.get(key) != ours[key])
    checks = [equal("fields that differ in the image processor on its own", differing, [])]
    if (folder / "preprocessor_config.json").is_file():
        stored = read_json(folder / "preprocessor_config.json")
        differing = sorted(key for key in ours if key in stored and stored[key] != ours[key])
        checks.append(equal("fields that differ in preprocessor_config.json", differing, []))
    return checks


def _plain(image_processor: Any) -> dict[str, Any]:
    return json.loads(image_processor.to_json_string())


def _check_tower_weights(weights: FolderWeights, family: HostFamily, tower: str, encoder: Encoder) -> Check:
    name = "tower weights" if len(family.towers) == 1 else f"tower weights of {tower}"
    stored = weights.tensors
    part = find_part(stored, family.prefixes(tower))
    if part is None:
        return Check(name, False, f"no key starts with {' or '.join(family.prefixes(tower))}")
    found = {part.name(key): stored_hash(stored[key]) for key in part.keys}
    differing = sorted(key for key in found.keys() | encoder.hashes.keys() if found.get(key) != encoder.hashes.get(key))
    detail = f"{len(found)} tensors, sha256 of each equal to the encoder's file"
    if differing:
        detail = f"{len(differing)} of {len(encoder.hashes)} tensors are not the encoder's, the first is {differing[0]}"
    return Check(name, not differing, detail)


def _check_untouched(
    weights: FolderWeights, host: FolderWeights, family: HostFamily, keep_projector: bool
) -> list[Check]:
    """What is neither tower nor (unless kept) projector is in both folders, bit for bit."""
    changing = (*family.towers, *(() if keep_projector else (family.projector,)))
    prefixes = tuple(prefix for part in changing for prefix in family.prefixes(part))
    before, after = (
        {key: tensor for key, tensor in one.tensors.items() if not key.startswith(prefixes)} for one in (host, weights)
    )
    if before.keys() != after.keys():
        differing = sorted(before.keys() ^ after.keys())
        return [
            Check("other weights", False, f"{len(differing)} keys are in one folder only, the first is {differing[0]}")
        ]
    # A linked file is the same bytes on the disk; what was copied or put together anew is read on both sides.
    same = {(a, b): a.samefile(b) for a, b in {(before[key].file, after[key].file) for key in before}}
    compared = [key for key in sorted(before) if not same[before[key].file, after[key].file]]
    size = sum(before[key].nbytes for key in compared)
    bar = tqdm(compared, desc="comparing weights", unit="tensor", disable=size < SHOWN)
    changed = [key for key in bar if not same_bytes(before[key], after[key])]
    detail = f"{len(changed)} changed, the first is {changed[0]}" if changed else f"{len(before)} tensors unchanged"
    if not changed and len(compared) < len(before):
        detail += f", {len(before) - len(compared)} of them in linked files"
    return [Check("other weights", not changed, detail)]
