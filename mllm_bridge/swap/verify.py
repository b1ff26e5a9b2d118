"""The proof after a swap: the folder holds our tower, feeds it as it was trained, runs and survives save and reload."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoImageProcessor, PreTrainedModel, ProcessorMixin

from cloc.towers.probe import make_probe_images
from mllm_bridge.encoder import Encoder
from mllm_bridge.hosts import find_family
from mllm_bridge.hosts.family import FeatureLayer, HostFamily
from mllm_bridge.hosts.loading import load_host, load_processor, load_with_report
from mllm_bridge.swap.checks import Check, check_plan, compare, make_prompt, require
from mllm_bridge.weights.folders import read_json
from mllm_bridge.weights.stored import FolderWeights, find_part, hash_stored
from mllm_bridge.weights.tensorfile import have_same_bytes

SHOWN = 2**30
"""Bytes to compare from which on a progress bar is shown."""
RUN_ON = ("2:1", "1:3")
"""The pictures that go through the whole host."""
NEW_TOKENS = 8
CONVERTED = 1e-4
"""Largest difference of features between a tower alone and under a host's own class, which adds in another order."""


def verify(
    folder: Path,
    encoder: Encoder,
    *,
    host: FolderWeights | None = None,
    keep_projector: bool = False,
    full: bool = False,
    feature_layer: FeatureLayer = None,
    device: str = "cpu",
    log: Callable[[str], None] = lambda line: None,
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
        log: takes one line for each stage.

    Returns:
        Every check; all have passed.

    Raises:
        VerifyError: at least one check failed; the message names each.
        ValueError: the folder cannot be read at all.
    """
    config = read_json(folder / "config.json")
    family = find_family(config, str(folder))
    layer = family.feature_layer(config) if feature_layer is None else feature_layer
    processor = load_processor(folder)
    log("verify: config and processor")
    checks = check_plan(family, config, processor, encoder, layer)
    checks += _same_image_processor_in_both_files(folder, processor)
    require(checks, f"verify {folder}")
    log("verify: weights, tensor by tensor")
    weights = FolderWeights.open(folder)
    checks += [_check_tower_weights(weights, family, name, encoder) for name in family.towers]
    if host is not None:
        checks += _check_untouched(weights, host, family, keep_projector)
    require(checks, f"verify {folder}")
    log("verify: every key and shape has its place")
    checks.append(check_keys(folder, family))
    if full:
        log("verify: the host runs")
        checks += check_running(folder, family, encoder, processor, layer, device)
    require(checks, f"verify {folder}")
    return checks


def _same_image_processor_in_both_files(folder: Path, processor: ProcessorMixin) -> list[Check]:
    """Old readers look into preprocessor_config.json, new ones into processor_config.json: both say the same."""
    ours = _plain(processor.image_processor)
    alone = _plain(AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    differing = sorted(key for key in ours if alone.get(key) != ours[key])
    checks = [compare("fields that differ in the image processor on its own", differing, [])]
    if (folder / "preprocessor_config.json").is_file():
        stored = read_json(folder / "preprocessor_config.json")
        differing = sorted(key for key in ours if key in stored and stored[key] != ours[key])
        checks.append(compare("fields that differ in preprocessor_config.json", differing, []))
    return checks


def _plain(image_processor: Any) -> dict[str, Any]:
    return json.loads(image_processor.to_json_string())


def _check_tower_weights(weights: FolderWeights, family: HostFamily, tower: str, encoder: Encoder) -> Check:
    name = "tower weights" if len(family.towers) == 1 else f"tower weights of {tower}"
    stored = weights.tensors
    part = find_part(stored, family.prefixes(tower))
    if part is None:
        return Check(name, False, f"no key starts with {' or '.join(family.prefixes(tower))}")
    found = {part.name(key): hash_stored(stored[key]) for key in part.keys}
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
    changed = [key for key in bar if not have_same_bytes(before[key], after[key])]
    detail = f"{len(changed)} changed, the first is {changed[0]}" if changed else f"{len(before)} tensors unchanged"
    if not changed and len(compared) < len(before):
        detail += f", {len(before) - len(compared)} of them in linked files"
    return [Check("other weights", not changed, detail)]


def check_keys(folder: Path, family: HostFamily) -> Check:
    """Every key on disk has a place of its shape in the host, and every place a key; no weight is loaded.

    transformers goes through its whole loading, renamings of keys included, with the weights left out.
    """
    wrong = load_with_report(folder, family, {"device_map": "meta"})[1]
    return Check("keys and shapes", not wrong, wrong or "every key has its place, every place its key")


@torch.no_grad()
def check_running(
    folder: Path, family: HostFamily, encoder: Encoder, processor: ProcessorMixin, layer: FeatureLayer, device: str
) -> list[Check]:
    """Features, forward, generate, save and reload, with all weights."""
    model = load_host(folder, family, device)
    checks = [_check_features(model, tower, encoder, layer) for tower in family.towers]
    groups = [list(make_probe_images())] if family.batches else [[name] for name in make_probe_images()]
    every = [_inputs(processor, names, model) for names in groups]
    features = sum(len(rows) for inputs in every for rows in family.image_features(model, inputs))
    placeholders = sum(int((inputs["input_ids"] == family.placeholder_id(processor)).sum()) for inputs in every)
    checks.append(
        Check(
            "image tokens equal placeholders",
            features == placeholders,
            f"{features} features, {placeholders} placeholders for {', '.join(make_probe_images())}",
        )
    )
    require(checks, f"verify {folder}")
    inputs = _inputs(processor, RUN_ON if family.batches else RUN_ON[:1] * 2, model)
    attended = inputs["attention_mask"].bool()
    logits = model(**inputs).logits[attended]
    finite = bool(torch.isfinite(logits).all())
    checks.append(
        Check("forward", finite, f"logits {tuple(logits.shape)}, {'' if finite else 'not all of them '}finite")
    )
    require(checks, f"verify {folder}")
    made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    new = made.shape[1] - inputs["input_ids"].shape[1]
    checks.append(Check("generate", 0 < new <= NEW_TOKENS, f"{new} new tokens for each of {len(made)} pictures"))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".reload-") as scratch:
        model.save_pretrained(scratch)
        del model  # two large hosts at a time may not fit
        again = load_host(Path(scratch), family, device)(**inputs).logits[attended]
    same = torch.equal(logits, again)
    largest = (logits.float() - again.float()).abs().max()
    detail = "logits equal bit for bit" if same else f"logits differ by up to {largest:.3g}"
    return [*checks, Check("save and reload", same, detail)]


def _inputs(processor: ProcessorMixin, names: Sequence[str], model: PreTrainedModel) -> Any:
    """What the host is given for these pictures, each in a prompt of its own."""
    inputs = processor(
        images=[[make_probe_images()[name]] for name in names],
        text=[make_prompt(processor)] * len(names),
        padding=True,
        padding_side="left",  # what is generated goes on behind the last token
        return_tensors="pt",
    )
    inputs.pop("labels", None)
    return inputs.to(model.device, next(model.parameters()).dtype)


def _check_features(model: PreTrainedModel, name: str, encoder: Encoder, layer: FeatureLayer) -> Check:
    """The tower inside the host gives what it gives alone, bit for bit, on the encoder's own pixels."""
    inside = model.get_submodule(f"model.{name}")
    weight = next(inside.parameters())
    alone = copy.deepcopy(encoder.tower).to(weight.device, weight.dtype)
    pixels = encoder.image_processor(images=make_probe_images()["2:1"], return_tensors="pt")["pixel_values"]
    pixels = torch.as_tensor(pixels).to(weight.device, weight.dtype)
    found, own = (tower(pixels, output_hidden_states=True, return_dict=True) for tower in (inside, alone))
    if layer is None:
        pairs = [(found.last_hidden_state, own.last_hidden_state)]
    else:
        layers = [layer] if isinstance(layer, int) else layer
        pairs = [(found.hidden_states[index], own.hidden_states[index]) for index in layers]
    largest = max(float((a - b).abs().max()) if a.shape == b.shape else float("inf") for a, b in pairs)
    same = largest <= (CONVERTED if encoder.form == "converted" else 0)
    which = "the last hidden state" if layer is None else f"layer {layer}"
    detail = f"{which} of {name} in the host {'equals' if same else 'differs from'} the tower alone"
    return Check("tower features", same, detail if same else f"{detail} by up to {largest:.3g}")
