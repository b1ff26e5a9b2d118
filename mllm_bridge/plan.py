"""What will be written: the host's config and processor for the new tower, and what differs from before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from mllm_bridge.checks import check_plan, require
from mllm_bridge.encoders import Encoder
from mllm_bridge.folders import locate, read_json
from mllm_bridge.hosts import FAMILIES, family_of
from mllm_bridge.hosts.family import FeatureLayer, HostFamily
from mllm_bridge.report import Change
from mllm_bridge.verify import load_processor
from mllm_bridge.weights import Part, find_part, weight_map

NOT_IN_A_HOST = ("transformers_version", "dtype", "torch_dtype", "architectures", "_name_or_path")
"""Fields of a tower's config that have no meaning inside a host, whose own type and version hold."""


@dataclass(frozen=True)
class Host:
    """A host as it lies on disk.

    Attributes:
        folder: where it lies.
        family: the description of its family.
        config: content of its config.json.
        processor: loaded.
        tower, projector: their keys on disk.
    """

    folder: Path
    family: HostFamily
    config: dict[str, Any]
    processor: ProcessorMixin
    tower: Part
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
        ValueError: it is of an unknown family, has no processor, or tower and projector are not where they should be.
    """
    folder = locate(mllm, "host")
    config = read_json(folder / "config.json")
    family = family_of(config, str(folder))
    keys = weight_map(folder)
    tower = _part(folder, family, "tower", family.tower_prefixes, list(keys))
    projector = _part(folder, family, "projector", family.projector_prefixes, list(keys))
    return Host(folder, family, config, load_processor(folder), tower, projector)


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


def make_plan(host: Host, encoder: Encoder, keep_projector: bool, feature_layer: FeatureLayer | None) -> Plan:
    """Set config and processor to the new tower and check that they agree; `host.processor` is changed in place.

    Raises:
        ValueError: the host does not take this tower, cannot keep its projector, or reads a layer that is not there.
        VerifyError: the settings do not agree with the tower.
    """
    family, facts = host.family, encoder.facts
    if facts.model_type not in family.tower_types:
        raise ValueError(
            f"encoder: {encoder.folder} is a {facts.model_type}; the family {family.model_type!r} takes "
            f"{', '.join(family.tower_types)} as they are"
        )
    layer = _layer(family.feature_layer(host.config) if feature_layer is None else feature_layer, facts.hidden_states)
    width, needed = family.projector_width(host.config), family.projector_input(facts, layer)
    if keep_projector and width != needed:
        raise ValueError(
            f"--keep-projector: the host's projector takes features of width {width}, the new tower gives {needed}; "
            "leave --keep-projector out and a new projector of that width is made"
        )
    settings = family.settings(facts, layer)
    seen = {"hidden_size": facts.width, "patch_size": facts.patch_size, "image_size": facts.image_size}
    stored = encoder.tower.config.to_diff_dict()
    vision = {**{key: value for key, value in stored.items() if key not in NOT_IN_A_HOST}, **seen}
    config = {**host.config, "vision_config": vision, **settings.config}
    before = {**_config_fields(host.config), **_processor_fields(host.processor, list(settings.processor))}
    host.processor.image_processor = family.image_processor(encoder.image_processor, facts)
    for name, value in settings.processor.items():
        setattr(host.processor, name, value)
    after = {**_config_fields(config), **_processor_fields(host.processor, list(settings.processor))}
    require(check_plan(family, config, host.processor, encoder, layer), "before writing")
    names = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    return Plan(layer, config, host.processor, tuple(Change(*key, before.get(key), after.get(key)) for key in names))


def _layer(layer: FeatureLayer, states: int) -> FeatureLayer:
    for index in [layer] if isinstance(layer, int) else layer:
        if not -states <= index < states:
            raise ValueError(
                f"the host reads hidden state {index}, the new tower has {states} (numbers {-states} to {states - 1}); "
                "choose one with --feature-layer, as --feature-layer -2"
            )
    return layer


def _config_fields(config: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The fields of a config, those of its tower one level deeper."""
    vision = config.get("vision_config", {})
    own = {("config", key): value for key, value in config.items() if key != "vision_config"}
    return {**own, **{("config", f"vision_config.{k}"): v for k, v in vision.items() if k not in NOT_IN_A_HOST}}


def _processor_fields(processor: ProcessorMixin, names: list[str]) -> dict[tuple[str, str], Any]:
    own = {("processor", name): getattr(processor, name, None) for name in names}
    return {**own, **{("image processor", name): value for name, value in processor.image_processor.to_dict().items()}}
