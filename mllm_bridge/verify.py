"""The proof after a swap: the folder holds our tower, feeds it as it was trained, runs and survives save and reload."""

from __future__ import annotations

import copy
import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel, ProcessorMixin

from mllm_bridge.checks import Check, check_plan, equal, prompt, require
from mllm_bridge.encoders import Encoder
from mllm_bridge.folders import read_json
from mllm_bridge.hosts import family_of
from mllm_bridge.hosts.family import FeatureLayer, HostFamily
from mllm_bridge.pictures import pictures
from mllm_bridge.weights import find_part, read, tensor_hash, weight_map

RUN_ON = ("2:1", "1:3")
"""The pictures that go through the whole host."""
NEW_TOKENS = 8


def verify(
    folder: Path,
    encoder: Encoder,
    *,
    host: Path | None = None,
    keep_projector: bool = False,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Check]:
    """Prove that a host folder holds this tower and agrees with it.

    Args:
        folder: the host with the tower in it.
        encoder: the tower that ought to be in it.
        host: the host that it was made from; then everything but tower and projector has to be unchanged.
        keep_projector: with `host`, the projector has to be unchanged too.
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
    layer = family.feature_layer(config)
    processor = load_processor(folder)
    say("verify: config and processor")
    checks = check_plan(family, config, processor, encoder, layer)
    checks += _same_image_processor_in_both_files(folder, processor)
    require(checks, f"verify {folder}")
    say("verify: weights, tensor by tensor")
    checks += _check_tower_weights(folder, family, encoder)
    if host is not None:
        checks += _check_untouched(folder, host, family, keep_projector)
    require(checks, f"verify {folder}")
    say("verify: the host runs")
    checks += _check_running(folder, family, encoder, processor, layer, device)
    require(checks, f"verify {folder}")
    return checks


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a host.

    Raises:
        ValueError: there is none, or it has no image processor and tokenizer.
    """
    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise ValueError(
            f"host: {folder} holds no processor (expected processor_config.json or preprocessor_config.json); "
            "save its processor into the folder: processor.save_pretrained(folder)"
        )
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"host: the processor in {folder} cannot be read: {error}") from error
    if not all(hasattr(processor, part) for part in ("image_processor", "tokenizer")):
        raise ValueError(
            f"host: {folder} holds a {type(processor).__name__}, expected a processor with an image processor and a "
            "tokenizer; save the whole processor into the folder: processor.save_pretrained(folder)"
        )
    return processor


def load_host(folder: Path, family: HostFamily, device: str) -> PreTrainedModel:
    """A host in evaluation mode, every key accounted for.

    Raises:
        ValueError: keys are missing, left over, or of another shape.
    """
    try:
        model, info = family.model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError) as error:
        raise ValueError(f"host: {folder} cannot be loaded: {error}") from error
    wrong = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
    if wrong:
        told = "; ".join(f"{name}: {len(keys)}, as {keys[0]}" for name, keys in wrong.items())
        raise ValueError(f"host: {folder} does not hold just its own weights: {told}")
    return model.eval().to(device)


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


def _check_tower_weights(folder: Path, family: HostFamily, encoder: Encoder) -> list[Check]:
    places = weight_map(folder)
    part = find_part(places, family.tower_prefixes)
    if part is None:
        return [Check("tower weights", False, f"no key starts with {' or '.join(family.tower_prefixes)}")]
    found = {part.name(key): tensor_hash(value) for key, value in read({key: places[key] for key in part.keys})}
    differing = sorted(
        name for name in found.keys() | encoder.hashes.keys() if found.get(name) != encoder.hashes.get(name)
    )
    detail = f"{len(found)} tensors, sha256 of each equal to the encoder's file"
    if differing:
        detail = f"{len(differing)} of {len(encoder.hashes)} tensors are not the encoder's, the first is {differing[0]}"
    return [Check("tower weights", not differing, detail)]


def _check_untouched(folder: Path, host: Path, family: HostFamily, keep_projector: bool) -> list[Check]:
    """What is neither tower nor (unless kept) projector is in both folders, bit for bit."""
    changing = family.tower_prefixes if keep_projector else (*family.tower_prefixes, *family.projector_prefixes)
    before, after = (
        {key: place for key, place in weight_map(path).items() if not key.startswith(changing)}
        for path in (host, folder)
    )
    if before.keys() != after.keys():
        differing = sorted(before.keys() ^ after.keys())
        return [
            Check("other weights", False, f"{len(differing)} keys are in one folder only, the first is {differing[0]}")
        ]
    hashes = {key: tensor_hash(value) for key, value in read(before)}
    changed = sorted(key for key, value in read(after) if tensor_hash(value) != hashes[key])
    detail = f"{len(changed)} changed, the first is {changed[0]}" if changed else f"{len(hashes)} tensors unchanged"
    return [Check("other weights", not changed, detail)]


@torch.no_grad()
def _check_running(
    folder: Path, family: HostFamily, encoder: Encoder, processor: ProcessorMixin, layer: FeatureLayer, device: str
) -> list[Check]:
    model = load_host(folder, family, device)
    weight = next(model.parameters())
    checks = [_check_features(model, family, encoder, layer)]
    every = processor(
        images=list(pictures().values()), text=[prompt(processor)] * len(pictures()), return_tensors="pt"
    ).to(device, weight.dtype)
    features = [len(rows) for rows in family.image_features(model, every["pixel_values"])]
    placeholders = (every["input_ids"] == processor.image_token_id).sum(dim=1).tolist()
    checks.append(
        Check(
            "image tokens equal placeholders",
            features == placeholders,
            f"{features} features, {placeholders} placeholders for {', '.join(pictures())}",
        )
    )
    require(checks, f"verify {folder}")
    inputs = processor(
        images=[pictures()[name] for name in RUN_ON], text=[prompt(processor)] * len(RUN_ON), return_tensors="pt"
    ).to(device, weight.dtype)
    logits = model(**inputs).logits
    finite = bool(torch.isfinite(logits).all())
    checks.append(
        Check("forward", finite, f"logits {tuple(logits.shape)}, {'' if finite else 'not all of them '}finite")
    )
    require(checks, f"verify {folder}")
    made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    new = made.shape[1] - inputs["input_ids"].shape[1]
    checks.append(Check("generate", 0 < new <= NEW_TOKENS, f"{new} new tokens for each of {len(made)} pictures"))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".reload-") as scratch:
        model.save_pretrained(scratch)
        del model
        gc.collect()
        again = load_host(Path(scratch), family, device)(**inputs).logits
    same = torch.equal(logits, again)
    largest = (logits.float() - again.float()).abs().max()
    detail = "logits equal bit for bit" if same else f"logits differ by up to {largest:.3g}"
    return [*checks, Check("save and reload", same, detail)]


def _check_features(model: PreTrainedModel, family: HostFamily, encoder: Encoder, layer: FeatureLayer) -> Check:
    """The tower inside the host gives what it gives alone, bit for bit, on the encoder's own pixels."""
    inside = model.get_submodule(family.tower_path)
    weight = next(inside.parameters())
    alone = copy.deepcopy(encoder.tower).to(weight.device, weight.dtype)
    pixels = encoder.image_processor(images=pictures()["2:1"], return_tensors="pt")["pixel_values"]
    pixels = torch.as_tensor(pixels).to(weight.device, weight.dtype)
    found, own = (tower(pixels, output_hidden_states=True, return_dict=True).hidden_states for tower in (inside, alone))
    layers = [layer] if isinstance(layer, int) else layer
    same = len(found) == len(own) and all(torch.equal(found[index], own[index]) for index in layers)
    detail = f"layer {layer} of the tower in the host " + ("equals" if same else "differs from") + " the tower alone"
    return Check("tower features", same, detail)
