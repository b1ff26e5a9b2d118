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
from cloc.towers.open_clip_tower import as_clip
from cloc.towers.timm_tower import TIMM

KINDS = ("timm", "open_clip")
OPEN_CLIP_CONFIG = "open_clip_config.json"
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""


def is_borrowed(asked: str | Path) -> bool:
    """Whether an encoder is named as a tower of timm or open_clip, or is a folder that one of them wrote."""
    folder = Path(asked)
    if str(asked).partition(":")[0] in KINDS and ":" in str(asked):
        return True
    if (folder / OPEN_CLIP_CONFIG).is_file() and not (folder / "config.json").is_file():
        return True
    return (folder / "config.json").is_file() and _by_timm(read_object(folder / "config.json", "a JSON object"))


def _by_timm(config: Mapping[str, Any]) -> bool:
    return "architecture" in config and "pretrained_cfg" in config


def write_borrowed(asked: str | Path, out: Path) -> Path:
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
        model = _timm(str(asked), name, weights)
        _write_timm(model, name, out)
        images = None if own.is_file() else _timm_images(model.pretrained_cfg, str(asked))
    else:
        model = _open_clip(str(asked), name, weights)
        tower = as_clip(model.visual, str(asked))
        tower.save_pretrained(out)
        images = None if own.is_file() else _open_clip_images(model.visual.preprocess_cfg, str(asked))
    if images is None:
        (out / own.name).write_bytes(own.read_bytes())
    else:
        images.save_pretrained(out)
    return out


def _parse(asked: str) -> tuple[str, str, str]:
    kind, _, rest = asked.partition(":")
    if kind not in KINDS or not rest:
        return ("open_clip" if (Path(asked) / OPEN_CLIP_CONFIG).is_file() else "timm"), asked, ""
    name, _, weights = rest.partition(":")
    if not name or (kind == "open_clip" and not weights and not Path(name).is_dir()):
        raise ValueError(
            f"encoder: {asked}: expected timm:ARCH, timm:ARCH:FILE, open_clip:ARCH:TAG, open_clip:ARCH:FILE, or a "
            "folder"
        )
    return kind, name, weights


def _file(asked: str, path: Path) -> Path:
    if not path.is_file() or path.suffix != ".safetensors":
        raise ValueError(f"encoder: {asked}: expected a .safetensors file, {path} is none; nothing else is loaded")
    return path


def _timm(asked: str, name: str, weights: str) -> nn.Module:
    more: dict[str, Any] = {"pretrained": True}
    if Path(name).is_dir():
        _file(asked, Path(name) / "model.safetensors")
        name = f"local-dir:{name}"
    elif weights:
        more = {"pretrained": False, "checkpoint_path": str(_file(asked, Path(weights)))}
    try:
        with refusing_code(asked):
            return timm.create_model(name, num_classes=0, **more).eval()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"encoder: {asked}: timm cannot load it ({_first_line(error)})") from error


def _open_clip(asked: str, name: str, weights: str) -> nn.Module:
    if Path(name).is_dir():
        _file(asked, Path(name) / "open_clip_model.safetensors")
        name, weights = f"local-dir:{name}", None
    elif Path(weights).suffix or Path(weights).is_file():
        _file(asked, Path(weights))
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
    told = {"model_type": TIMM, "architecture": model.pretrained_cfg["architecture"], "model_args": arguments}
    write_json(out / "config.json", {**told, "num_classes": 0, "label_names": []})
    state = {f"timm_model.{key}": value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})


def _timm_images(told: Mapping[str, Any], asked: str) -> BaseImageProcessor:
    size, mode = told["input_size"][-1], told.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(_no_geometry(asked, f"crop_mode {mode!r}"))
    return _images(size, math.floor(size / told["crop_pct"]), mode == "squash", told)


def _open_clip_images(told: Mapping[str, Any], asked: str) -> BaseImageProcessor:
    size, mode = told["size"], told["resize_mode"]
    size = size if isinstance(size, int) else size[0]
    if mode not in ("shortest", "squash"):
        raise ValueError(_no_geometry(asked, f"resize_mode {mode!r}"))
    return _images(size, size, mode == "squash", told)


def _no_geometry(asked: str, what: str) -> str:
    return (
        f"encoder: {asked}: its {what} has no image processor in transformers that gives the same pixels; save the one "
        "that is to be used as preprocessor_config.json into the tower's folder"
    )


def _images(size: int, resized: int, squash: bool, told: Mapping[str, Any]) -> BaseImageProcessor:
    return CLIPImageProcessor(
        size={"height": resized, "width": resized} if squash else {"shortest_edge": resized},
        crop_size={"height": size, "width": size},
        resample=RESAMPLE[told["interpolation"]],
        image_mean=list(told["mean"]),
        image_std=list(told["std"]),
    )
