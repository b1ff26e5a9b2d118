"""Find and load the tower that goes in: the newest export, an export folder, or the folder or hub name of a tower."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    CLIPVisionModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    PreTrainedModel,
    SiglipVisionModel,
    SwinModel,
    Swinv2Model,
    ViTModel,
)

from cloc.export import find_newest_export, hash_file, read_card
from cloc.model_bounds import check_picture_sizes, check_sizes
from cloc.model_folders import UNREADABLE, in_one_line, refusing_code
from cloc.towers.external import is_external, write_external
from cloc.towers.probe import TowerFacts, pads_to_square, probe, read_size
from cloc.towers.timm import TIMM, TimmTokens
from mllm_bridge.weights.folders import locate, read_json
from mllm_bridge.weights.packed import refuse_adapters, refuse_quantised
from mllm_bridge.weights.stored import LEVEL, FolderWeights, hash_tensor, read_tensors
from mllm_bridge.weights.tensorfile import Stored

TOWERS: dict[str, type[PreTrainedModel]] = {
    "clip_vision_model": CLIPVisionModel,
    "clip": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip": SiglipVisionModel,
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
    "dinov3_vit": DINOv3ViTModel,
    "swin": SwinModel,
    "swinv2": Swinv2Model,
    "vit": ViTModel,
    TIMM: TimmTokens,
}
"""Config types that hold a tower. Whether a host takes it as it is or wrapped, its family says."""
PLAIN_FOLDERS = ("clip_vision_model", "siglip_vision_model", "swin", TIMM)
"""Where an export of ours keeps its tower as a plain transformers model."""
NOT_IN_A_HOST = ("transformers_version", "dtype", "torch_dtype", "architectures", "_name_or_path")
"""Fields of a tower's config that have no meaning inside a host, whose own type and version hold."""
ALWAYS_STATED = ("hidden_size", "patch_size", "image_size")
"""Fields that a host's config names even where they are the default of the tower's class."""
NOT_THE_TOWER = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias", "classifier.")
"""Keys of a two-tower checkpoint that do not belong to the vision tower; they are left behind on purpose."""
POSITIONS = "embeddings.position_ids"
"""A counter (0, 1, 2, ...) that old checkpoints hold as a tensor; transformers makes it anew."""


@dataclass(frozen=True)
class Encoder:
    """A loaded tower with its processor and its papers.

    Attributes:
        asked: what the user typed.
        folder: where the plain tower lies.
        tower: the transformers vision model, in evaluation mode, with the types of its file.
        config: its config as plain values.
        image_processor: the processor that lies beside the tower.
        facts: what the dry forward found.
        stored: where each of the tower's tensors lies, by the name that it gets behind a host's prefix.
        hashes: sha256 of each of these tensors, by the same name.
        left_behind: keys of the file that are no part of the tower.
        card: the `export.json` of the export it belongs to, None for an encoder from elsewhere.
        kind: of the tower as it was found (`TowerFacts.kind`), whatever is put around it.
        form: `stock`, `wrapper` or `converted`: how it goes into the host.
        scratch: keeps the folder that an external tower was written into as long as this is used.
    """

    asked: str
    folder: Path
    tower: nn.Module
    config: dict[str, Any]
    image_processor: Any
    facts: TowerFacts
    stored: dict[str, Stored]
    hashes: dict[str, str]
    left_behind: tuple[str, ...]
    card: dict[str, Any] | None
    kind: str
    form: str = "stock"
    scratch: tempfile.TemporaryDirectory | None = None

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tower's weights as its file has them, by the name that they get behind a host's prefix."""
        return dict(read_tensors(self.stored))


def find_encoder(asked: str | Path, runs: Path) -> Path:
    """The folder with the tower for what the user typed. `cloc` is a reserved word, looked at before any folder.

    Raises:
        ValueError: there is no export, no such folder or name, or the folder holds no config.json.
    """
    folder = find_newest_export(runs) if str(asked) == "cloc" else locate(asked, "encoder")
    if read_json(folder / "config.json").get("model_type") != "cloc":
        return folder
    plain = next((folder / name for name in PLAIN_FOLDERS if (folder / name / "config.json").is_file()), None)
    if plain is None:
        raise ValueError(
            f"encoder: {folder} is an export without a plain tower (expected {' or '.join(PLAIN_FOLDERS)} in it); "
            "export it again from its checkpoint"
        )
    return plain


def load_encoder(asked: str | Path, runs: Path) -> Encoder:
    """Find, load, account for every key, and probe.

    Raises:
        ValueError: as `find_encoder`, `write_external` and `probe`; or the tower is of an unknown type,
            has no processor, or its file does not hold just what the tower needs.
    """
    if str(asked) != "cloc" and is_external(asked):
        scratch = tempfile.TemporaryDirectory(prefix="external-tower-")
        loaded = _load(asked, write_external(asked, Path(scratch.name)))
        return replace(loaded, folder=Path(asked), scratch=scratch)
    return _load(asked, find_encoder(asked, runs))


def _load(asked: str | Path, folder: Path) -> Encoder:
    config_json = read_json(folder / "config.json")
    refuse_adapters(folder, "encoder")
    refuse_quantised(config_json, str(folder))
    check_sizes(config_json, str(folder))
    model_type = config_json.get("model_type")
    if not isinstance(model_type, str) or model_type not in TOWERS:
        raise ValueError(
            f"encoder: {folder} is of type {model_type!r}; towers that go in: {', '.join(TOWERS)}, "
            "or an export of this kit"
        )
    card, weights = _read_card(folder)
    image_processor = _load_image_processor(folder)
    tower, info = _load_tower(folder, TOWERS[model_type])
    weights = weights or FolderWeights.open(folder)
    left_behind = tuple(key for key in weights.tensors if key.startswith(NOT_THE_TOWER) or key.endswith(POSITIONS))
    _account_for_keys(folder, info, left_behind)
    held = {key: tensor for key, tensor in weights.tensors.items() if key not in left_behind}
    level = _level_of(held, tower)
    stored = {key.removeprefix(level): tensor for key, tensor in held.items()}
    hashes = _hash_tensors(folder, stored, tower)
    facts = probe(tower, image_processor, f"encoder {folder}")
    config = {key: value for key, value in tower.config.to_diff_dict().items() if key not in NOT_IN_A_HOST}
    config.update(model_type=tower.config.model_type, **{key: getattr(tower.config, key) for key in ALWAYS_STATED})
    return Encoder(
        asked=str(asked),
        folder=folder,
        tower=tower,
        config=config,
        image_processor=image_processor,
        facts=facts,
        stored=stored,
        hashes=hashes,
        left_behind=left_behind,
        card=card,
        kind=facts.kind,
    )


def _hash_tensors(folder: Path, stored: dict[str, Stored], tower: nn.Module) -> dict[str, str]:
    """The hash of each tensor on disk, each of which has to be in the tower.

    Some towers have other names in memory than on disk: what is not there by its name is looked for by its value.
    """
    inside, hashes, sought = {key.removeprefix(LEVEL): value for key, value in tower.state_dict().items()}, {}, []
    for name, value in read_tensors(stored):
        hashes[name] = hash_tensor(value)
        found = inside.get(name)
        if found is not None and found.dtype == value.dtype and torch.equal(found, value):
            del inside[name]
        else:
            sought.append(name)
    strange = Counter(hashes[name] for name in sought)
    if sought:
        strange -= Counter(hash_tensor(value) for value in inside.values())
    if strange:
        wrong = sorted(name for name in sought if hashes[name] in strange)
        raise ValueError(f"encoder: {folder}: {len(wrong)} tensors are not as in the file, the first is {wrong[0]}")
    return hashes


def _level_of(keys: Collection[str], tower: nn.Module) -> str:
    """What stands before each of the tower's names in its file: nothing, CLIP's old level, or the name of the tower in
    a model with a head (`swin.` in a classifier's file), unless the tower itself has names with it.
    """
    inside, head = tower.state_dict(), f"{tower.base_model_prefix}."
    levels = (LEVEL,) if any(key in inside for key in keys) else (LEVEL, head)
    return next((level for level in levels if all(key.startswith(level) for key in keys)), "")


def _load_image_processor(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError(
            f"encoder: {folder} holds no preprocessor_config.json; mean, deviation and geometry are never guessed: "
            "save the image processor that the encoder was trained with into the folder"
        )
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = read_json(folder / name)
            inner = content.get("image_processor", content)
            check_picture_sizes(inner if isinstance(inner, dict) else {}, f"encoder: {folder / name}")
    try:
        with refusing_code(folder):
            found = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(f"encoder: the image processor in {folder} cannot be read: {in_one_line(error)}") from error
    if pads_to_square(found) and not found.do_center_crop:  # as exports had it before, see `cloc.models.processing`
        side = read_size(found, "size")["shortest_edge"]
        found.do_center_crop, found.crop_size = True, type(found.size)(height=side, width=side)
    return found


def _load_tower(folder: Path, tower_class: type[PreTrainedModel]) -> tuple[nn.Module, dict[str, Any]]:
    try:
        with refusing_code(folder):
            tower, info = tower_class.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(f"encoder: the tower in {folder} cannot be loaded: {in_one_line(error)}") from error
    return tower.eval(), info


def _account_for_keys(folder: Path, info: dict[str, Any], left_behind: tuple[str, ...]) -> None:
    unexpected = sorted(key for key in info["unexpected_keys"] if not _explained(key, left_behind))
    if info["missing_keys"] or unexpected or info["mismatched_keys"]:
        raise ValueError(
            f"encoder: {folder} does not hold just its tower: missing {sorted(info['missing_keys'])[:3]}, "
            f"unexpected {unexpected[:3]}, of another shape {sorted(map(str, info['mismatched_keys']))[:3]}"
        )


def _explained(key: str, left_behind: tuple[str, ...]) -> bool:
    return any(key in (known, known.removeprefix(LEVEL)) for known in left_behind)


def _read_card(folder: Path) -> tuple[dict[str, Any], FolderWeights] | tuple[None, None]:
    """The export card above a plain tower, and its weights, whose file has to be the one that the card lists."""
    if folder.name not in PLAIN_FOLDERS or not (folder.parent / "config.json").is_file():
        return None, None
    if read_json(folder.parent / "config.json").get("model_type") != "cloc":
        return None, None
    card, weights = read_card(folder.parent), FolderWeights.open(folder)
    for file in weights.metadata:
        listed = card.get("files", {}).get(f"{folder.name}/{file.name}")
        if listed is not None and listed != hash_file(file):
            raise ValueError(
                f"encoder: {file} is not the file that export.json lists (sha256 differs); export it again"
            )
    return card, weights
