"""What will be written: the host's config and processor for the new tower, and what differs from before."""

from __future__ import annotations

import copy
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from cloc.model_folders import refusing_unreadable
from mllm_bridge.encoder import Encoder
from mllm_bridge.hosts import FAMILIES, find_family
from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings
from mllm_bridge.hosts.loading import load_processor
from mllm_bridge.swap.checks import check_plan, require
from mllm_bridge.swap.report import Change
from mllm_bridge.weights.folders import locate, read_json
from mllm_bridge.weights.packed import refuse_adapters, refuse_packed_keys
from mllm_bridge.weights.stored import FolderWeights, Part, find_part

LARGEST_PROJECTOR = 1 << 30
"""Weights of a projector, which is the one part that a swap draws anew."""


@dataclass(frozen=True)
class Host:
    """A host as it lies on disk.

    Attributes:
        folder: where it lies.
        family: the description of its family.
        config: content of its config.json.
        processor: loaded.
        weights: where its tensors lie.
        towers, projector: their keys on disk; several towers where the family has several from one config.
    """

    folder: Path
    family: HostFamily
    config: dict[str, Any]
    processor: ProcessorMixin
    weights: FolderWeights
    towers: tuple[Part, ...]
    projector: Part


@dataclass(frozen=True)
class Plan:
    """What the new host's config and processor say.

    Attributes:
        layer: the hidden state (or several) that the host will read.
        config: content of its config.json.
        processor: set to the new tower.
        changes: every field that differs.
    """

    layer: FeatureLayer
    config: dict[str, Any]
    processor: ProcessorMixin
    changes: tuple[Change, ...]


def open_host(mllm: str | Path) -> Host:
    """Read everything of a host but its weights.

    Raises:
        ValueError: it is quantised, holds adapters, is of an unknown family, has no processor, or tower and projector
            are not where they should be.
    """
    folder = locate(mllm, "host")
    config = read_json(folder / "config.json")
    refuse_adapters(folder, "host")
    family = find_family(config, str(folder))
    weights = FolderWeights.open(folder)
    keys = list(weights.tensors)
    refuse_packed_keys(keys, str(folder))
    with refusing_unreadable(folder):
        shapes = family.projector_shapes(config)
    if sum(math.prod(shape) for shape in shapes.values()) > LARGEST_PROJECTOR:
        raise ValueError(
            f"host: {folder}: its config.json asks for a projector of more than {LARGEST_PROJECTOR:,} weights"
        )
    towers = tuple(_part(folder, family, "tower", family.prefixes(name), keys) for name in family.towers)
    projector = _part(folder, family, "projector", family.projector_prefixes, keys)
    return Host(folder, family, config, load_processor(folder), weights, towers, projector)


def _part(folder: Path, family: HostFamily, what: str, prefixes: tuple[str, ...], keys: list[str]) -> Part:
    part = find_part(keys, prefixes)
    if part is None:
        raise ValueError(
            f"host: {folder} is of the family {family.model_type!r}, whose {what} lies under {' or '.join(prefixes)}, "
            f"but none of its {len(keys)} keys does (the first is {min(keys, default='none')}); known families: "
            f"{', '.join(sorted(FAMILIES))}. Convert the host to the layout of transformers, or describe its family "
            "in mllm_bridge/hosts/: where tower and projector sit in memory and on disk"
        )
    return part


def make_plan(host: Host, encoder: Encoder, keep_projector: bool, feature_layer: FeatureLayer) -> Plan:
    """Set config and processor to the new tower and check that they agree.

    Args:
        host: stays as it is.
        encoder: as it goes in (`fitting.fit`).
        keep_projector: the projector has to have the same shapes before and after.
        feature_layer: what the host is to read; None leaves that to the host.

    Raises:
        ValueError: the host cannot keep its projector, or reads a layer that is not there.
        VerifyError: the settings do not agree with the tower.
    """
    family, facts = host.family, encoder.facts
    with refusing_unreadable(host.folder):
        layer = _layer(host, encoder, feature_layer)
    settings = family.settings(host.config, facts, layer)
    config = {**host.config, "vision_config": {**encoder.config, **settings.vision}, **settings.config}
    if keep_projector:
        _same_projector(family, host.config, config)
    before = {**_config_fields(host.config), **_processor_fields(host.processor, list(settings.processor))}
    processor = _set_processor(host, encoder, settings)
    after = {**_config_fields(config), **_processor_fields(processor, list(settings.processor))}
    require(check_plan(family, config, processor, encoder, layer), "before writing")
    names = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    return Plan(layer, config, processor, tuple(Change(*key, before.get(key), after.get(key)) for key in names))


def _set_processor(host: Host, encoder: Encoder, settings: Settings) -> ProcessorMixin:
    """The host's processor, set to the tower, as it will be when it is read again."""
    processor, facts, own = copy.copy(host.processor), encoder.facts, encoder.image_processor
    processor.image_processor = host.family.image_processor(own, processor.image_processor, facts, settings)
    for name, value in settings.processor.items():
        setattr(processor, name, value)
    video = copy.copy(getattr(processor, "video_processor", None))
    if video is not None:
        processor.video_processor = video
        side = {"height": facts.image_size, "width": facts.image_size}
        for name, value in {**host.family.video_fields(side), "image_mean": list(own.image_mean)}.items():
            setattr(video, name, value)
        video.image_std = list(own.image_std)
    # Some processors work out what they write into a prompt once, when they are made.
    with tempfile.TemporaryDirectory(prefix="processor-") as scratch:
        processor.save_pretrained(scratch)
        return load_processor(Path(scratch))


def _same_projector(family: HostFamily, before: dict[str, Any], after: dict[str, Any]) -> None:
    if family.projector_shapes(before) != family.projector_shapes(after):
        raise ValueError(
            f"--keep-projector: the host's projector takes features of width {family.projector_width(before)}, the new "
            f"tower gives {family.projector_width(after)}; leave --keep-projector out and a new projector of that "
            "width is made"
        )


def _layer(host: Host, encoder: Encoder, asked: FeatureLayer) -> FeatureLayer:
    states, usable, own = encoder.facts.hidden_states, encoder.facts.usable, host.family.feature_layer(host.config)
    if own is None:
        if asked is not None:
            raise ValueError(
                f"--feature-layer: hosts of the family {host.family.model_type!r} read the last hidden state and no "
                "other; leave --feature-layer out"
            )
        return None
    # A tower of several resolutions gives the layers that hosts name by default in another shape, or not at all.
    layer = asked if asked is not None else -1 if encoder.kind == "pyramid" else own
    for index in [layer] if isinstance(layer, int) else layer:
        if not -states <= index < states:
            raise ValueError(
                f"the host reads hidden state {index}, the new tower has {states} (numbers {-states} to {states - 1}); "
                "choose one with --feature-layer, as --feature-layer -2"
            )
        if index % states < states - usable:
            raise ValueError(
                f"--feature-layer: hidden state {index} of this tower is of another resolution than its last; "
                f"choose -1{f' to -{usable}' if usable > 1 else ''}"
            )
    return layer


def _config_fields(config: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The fields of a config, those of its tower one level deeper."""
    vision = config.get("vision_config", {})
    own = {("config", key): value for key, value in config.items() if key != "vision_config"}
    return {**own, **{("config", f"vision_config.{k}"): v for k, v in vision.items()}}


def _processor_fields(processor: ProcessorMixin, names: list[str]) -> dict[tuple[str, str], Any]:
    own = {("processor", name): getattr(processor, name, None) for name in names}
    return {**own, **{("image processor", name): value for name, value in processor.image_processor.to_dict().items()}}
