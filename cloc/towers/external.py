"""Towers of timm and open_clip: fetched by the library they belong to, written down as transformers has them.

    timm:ARCH, timm:ARCH:FILE, timm:FOLDER             a timm name (with its tag, if any), its weights in a
                                                       .safetensors file, or a folder that timm wrote
    open_clip:ARCH:TAG, open_clip:ARCH:FILE, FOLDER    a tag, a .safetensors file, or a folder that open_clip wrote

A ViT of open_clip becomes a plain CLIP tower, which hosts take as it is; every timm tower comes through the wrapper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import timm
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPImageProcessor
from transformers.image_processing_utils import BaseImageProcessor

from cloc.files import read_object, write_json
from cloc.model_folders import refusing_code
from cloc.towers.open_clip import convert_to_clip
from cloc.towers.sources import OPEN_CLIP_CONFIG, is_open_clip_folder, split_source
from cloc.towers.timm import TIMM

RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""


def is_external(asked: str | Path) -> bool:
    """Whether an encoder is named as a tower of timm or open_clip, or is a folder that one of them wrote."""
    folder = Path(asked)
    if split_source(str(asked)) is not None or is_open_clip_folder(folder):
        return True
    return (folder / "config.json").is_file() and _by_timm(read_object(folder / "config.json", "a JSON object"))


def _by_timm(config: Mapping[str, Any]) -> bool:
    return "architecture" in config and "pretrained_cfg" in config


def write_external(asked: str | Path, out: Path) -> Path:
    """Write such a tower with its image processor as a transformers folder.

    Args:
        asked: as at the top of this file.
        out: an existing empty folder.

    Returns:
        `out`.

    Raises:
        ValueError: the library has no such tower, its weights do not fit, or its geometry has no counterpart.
    """
    kind, name, weights = _parse(str(asked))
    own = Path(name) / "preprocessor_config.json"
    if kind == "timm":
        model = _load_timm(str(asked), name, weights)
        _write_timm(model, name, out)
        images = None if own.is_file() else _timm_processor(model.pretrained_cfg, str(asked))
    else:
        model = _load_open_clip(str(asked), name, weights)
        tower = convert_to_clip(model.visual, str(asked))
        tower.save_pretrained(out)
        images = None if own.is_file() else _open_clip_processor(model.visual.preprocess_cfg, str(asked))
    if images is None:
        (out / own.name).write_bytes(own.read_bytes())
    else:
        images.save_pretrained(out)
    return out


def _parse(asked: str) -> tuple[str, str, str]:
    found = split_source(asked)
    if found is None:
        return ("open_clip" if (Path(asked) / OPEN_CLIP_CONFIG).is_file() else "timm"), asked, ""
    kind, name, weights = found
    if not name or (kind == "open_clip" and not weights and not Path(name).is_dir()):
        raise ValueError(
            f"encoder: {asked}: expected timm:ARCH, timm:ARCH:FILE, open_clip:ARCH:TAG, open_clip:ARCH:FILE, or a "
            "folder"
        )
    return kind, name, weights


def _require_file(asked: str, path: Path) -> Path:
    if not path.is_file() or path.suffix != ".safetensors":
        raise ValueError(f"encoder: {asked}: expected a .safetensors file, {path} is none; nothing else is loaded")
    return path


def _load_timm(asked: str, name: str, weights: str) -> nn.Module:
    more: dict[str, Any] = {"pretrained": True}
    if Path(name).is_dir():
        _require_file(asked, Path(name) / "model.safetensors")
        name = f"local-dir:{name}"
    elif weights:
        more = {"pretrained": False, "checkpoint_path": str(_require_file(asked, Path(weights)))}
    try:
        with refusing_code(asked):
            return timm.create_model(name, num_classes=0, **more).eval()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"encoder: {asked}: timm cannot load it ({_first_line(error)})") from error


def _load_open_clip(asked: str, name: str, weights: str) -> nn.Module:
    if Path(name).is_dir():
        _require_file(asked, Path(name) / "open_clip_model.safetensors")
        name, weights = f"local-dir:{name}", None
    elif Path(weights).suffix or Path(weights).is_file():
        _require_file(asked, Path(weights))
    try:
        with refusing_code(asked):
            return open_clip.create_model(name, pretrained=weights, require_pretrained=True).eval()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"encoder: {asked}: open_clip cannot load it ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _write_timm(model: nn.Module, name: str, out: Path) -> None:
    folder = Path(name) / "config.json"
    arguments = read_object(folder, "a JSON object").get("model_args") or {} if folder.is_file() else {}
    config = {"model_type": TIMM, "architecture": model.pretrained_cfg["architecture"], "model_args": arguments}
    write_json(out / "config.json", {**config, "num_classes": 0, "label_names": []})
    state = {f"timm_model.{key}": value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})


def _timm_processor(data_config: Mapping[str, Any], asked: str) -> BaseImageProcessor:
    size, mode = data_config["input_size"][-1], data_config.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(_describe_geometry(asked, f"crop_mode {mode!r}"))
    return _make_processor(size, math.floor(size / data_config["crop_pct"]), mode == "squash", data_config)


def _open_clip_processor(data_config: Mapping[str, Any], asked: str) -> BaseImageProcessor:
    size, mode = data_config["size"], data_config["resize_mode"]
    size = size if isinstance(size, int) else size[0]
    if mode not in ("shortest", "squash"):
        raise ValueError(_describe_geometry(asked, f"resize_mode {mode!r}"))
    return _make_processor(size, size, mode == "squash", data_config)


def _describe_geometry(asked: str, what: str) -> str:
    return (
        f"encoder: {asked}: its {what} has no image processor in transformers that gives the same pixels; save the one "
        "that is to be used as preprocessor_config.json into the tower's folder"
    )


def _make_processor(size: int, resized: int, squash: bool, data_config: Mapping[str, Any]) -> BaseImageProcessor:
    return CLIPImageProcessor(
        size={"height": resized, "width": resized} if squash else {"shortest_edge": resized},
        crop_size={"height": size, "width": size},
        resample=RESAMPLE[data_config["interpolation"]],
        image_mean=list(data_config["mean"]),
        image_std=list(data_config["std"]),
    )
