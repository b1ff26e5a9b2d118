"""The part of the proof that loads the host: every key has its place, it runs, it survives save and reload."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from cloc.towers.probe import make_probe_images
from mllm_bridge.encoder import Encoder
from mllm_bridge.hosts.family import FeatureLayer, HostFamily
from mllm_bridge.hosts.loading import load_host, loaded
from mllm_bridge.swap.checks import Check, prompt, require

RUN_ON = ("2:1", "1:3")
"""The pictures that go through the whole host."""
NEW_TOKENS = 8
CONVERTED = 1e-4
"""Largest difference of features between a tower alone and under a host's own class, which adds in another order."""


def check_places(folder: Path, family: HostFamily) -> Check:
    """Every key on disk has a place of its shape in the host, and every place a key; no weight is loaded.

    transformers goes through its whole loading, renamings of keys included, with the weights left out.
    """
    wrong = loaded(folder, family, {"device_map": "meta"})[1]
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
    seen = inputs["attention_mask"].bool()
    logits = model(**inputs).logits[seen]
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
        again = load_host(Path(scratch), family, device)(**inputs).logits[seen]
    same = torch.equal(logits, again)
    largest = (logits.float() - again.float()).abs().max()
    detail = "logits equal bit for bit" if same else f"logits differ by up to {largest:.3g}"
    return [*checks, Check("save and reload", same, detail)]


def _inputs(processor: ProcessorMixin, names: Sequence[str], model: PreTrainedModel) -> Any:
    """What the host is given for these pictures, each in a prompt of its own."""
    inputs = processor(
        images=[[make_probe_images()[name]] for name in names],
        text=[prompt(processor)] * len(names),
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
