"""Find and load the tower that goes in: the newest export, an export folder, or a CLIP or SigLIP folder or hub name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoImageProcessor, CLIPVisionModel, PreTrainedModel, SiglipVisionModel

from cloc.export import newest_export, read_card
from mllm_bridge.folders import locate, read_json
from mllm_bridge.probe import TowerFacts, probe
from mllm_bridge.weights import LEVEL, file_hash, read, tensor_hash, weight_map

TOWERS: dict[str, type[PreTrainedModel]] = {
    "clip_vision_model": CLIPVisionModel,
    "clip": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip": SiglipVisionModel,
}
"""Config types that hold a tower which goes in as it is."""
PLAIN_FOLDERS = ("clip_vision_model", "siglip_vision_model")
"""Where an export of ours keeps its tower as a plain transformers model."""
NOT_THE_TOWER = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")
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
        image_processor: the processor that lies beside the tower.
        facts: what the dry forward found.
        hashes: sha256 of each tensor of the tower's file, by its name in the tower.
        left_behind: keys of the file that are no part of the tower.
        card: the `export.json` of the export it belongs to, None for an encoder from elsewhere.
    """

    asked: str
    folder: Path
    tower: nn.Module
    image_processor: Any
    facts: TowerFacts
    hashes: dict[str, str]
    left_behind: tuple[str, ...]
    card: dict[str, Any] | None

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tower's weights by name, without any prefix."""
        return dict(self.tower.state_dict())


def find_encoder(asked: str | Path, runs: Path) -> Path:
    """The folder with the tower for what the user typed. `cloc` is a reserved word, looked at before any folder.

    Raises:
        ValueError: there is no export, no such folder or name, or the folder holds no config.json.
    """
    folder = newest_export(runs) if str(asked) == "cloc" else locate(asked, "encoder")
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
        ValueError: as `find_encoder` and `probe`; or the tower is of an unknown type, has no processor, or its file
            does not hold just what the tower needs.
    """
    folder = find_encoder(asked, runs)
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in TOWERS:
        raise ValueError(
            f"encoder: {folder} is of type {model_type!r}; towers that go in: {', '.join(TOWERS)}, "
            "or an export of this kit"
        )
    card = _card(folder)
    image_processor = _image_processor(folder)
    tower, left_behind = _load_tower(folder, TOWERS[model_type])
    places = {_own_name(key): (key, place) for key, place in weight_map(folder).items() if key not in left_behind}
    hashes = {_own_name(key): tensor_hash(value) for key, value in read(dict(places.values()))}
    loaded = {name: tensor_hash(value) for name, value in tower.state_dict().items()}
    if hashes != loaded:
        wrong = sorted(name for name in hashes.keys() | loaded.keys() if hashes.get(name) != loaded.get(name))
        raise ValueError(f"encoder: {folder}: {len(wrong)} tensors are not as in the file, the first is {wrong[0]}")
    facts = probe(tower, image_processor, f"encoder {folder}")
    return Encoder(str(asked), folder, tower, image_processor, facts, hashes, left_behind, card)


def _own_name(key: str) -> str:
    return key.removeprefix(LEVEL)


def _image_processor(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError(
            f"encoder: {folder} holds no preprocessor_config.json; mean, deviation and geometry are never guessed: "
            "save the image processor that the encoder was trained with into the folder"
        )
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"encoder: the image processor in {folder} cannot be read: {error}") from error


def _load_tower(folder: Path, tower_class: type[PreTrainedModel]) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        tower, info = tower_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError) as error:
        raise ValueError(f"encoder: the tower in {folder} cannot be loaded: {error}") from error
    keys = weight_map(folder)
    left_behind = tuple(key for key in keys if key.startswith(NOT_THE_TOWER) or key.endswith(POSITIONS))
    unexpected = sorted(key for key in info["unexpected_keys"] if not _explained(key, left_behind))
    if info["missing_keys"] or unexpected or info["mismatched_keys"]:
        raise ValueError(
            f"encoder: {folder} does not hold just its tower: missing {sorted(info['missing_keys'])[:3]}, "
            f"unexpected {unexpected[:3]}, of another shape {sorted(map(str, info['mismatched_keys']))[:3]}"
        )
    return tower.eval(), left_behind


def _explained(key: str, left_behind: tuple[str, ...]) -> bool:
    return any(key == known or _own_name(known) == key for known in left_behind)


def _card(folder: Path) -> dict[str, Any] | None:
    """The export card above a plain tower; the tower's file has to be the one that the card lists."""
    if folder.name not in PLAIN_FOLDERS or not (folder.parent / "config.json").is_file():
        return None
    if read_json(folder.parent / "config.json").get("model_type") != "cloc":
        return None
    card = read_card(folder.parent)
    for file in sorted(set(weight_map(folder).values())):
        listed = card.get("files", {}).get(f"{folder.name}/{file.name}")
        if listed is not None and listed != file_hash(file):
            raise ValueError(
                f"encoder: {file} is not the file that export.json lists (sha256 differs); export it again"
            )
    return card
