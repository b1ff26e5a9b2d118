"""A tiny host and tiny encoders, made once: a CLIP tower that pads, a SigLIP tower without CLS, an export."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_hosts import make_tiny_of
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaImageProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
)
from transformers.utils.logging import disable_progress_bar

from cloc.export import hash_file
from mllm_bridge.encoder import load_encoder
from mllm_bridge.hosts import FAMILIES
from mllm_bridge.hosts.tiny import make_tiny
from mllm_bridge.swap.command import swap

disable_progress_bar()
SMALL = {"intermediate_size": 64, "num_attention_heads": 2, "image_size": 48, "patch_size": 8}


def _padding(size: int = 48) -> LlavaImageProcessor:
    """As our exports have it; crop_size is left at its default on purpose."""
    return LlavaImageProcessor(do_pad=True, do_center_crop=False, size={"shortest_edge": size})


def _with_level(folder: Path) -> None:
    """Give the keys the level that our exports write and old transformers expect."""
    tensors = load_file(folder / "model.safetensors")
    named = {f"vision_model.{key.removeprefix('vision_model.')}": value for key, value in tensors.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def _save_clip(folder: Path, seed: int = 1, **changes) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPVisionModel(
            CLIPVisionConfig(**{**SMALL, "hidden_size": 48, "num_hidden_layers": 4, **changes})
        ).save_pretrained(folder)
    _with_level(folder)
    _padding(changes.get("image_size", 48)).save_pretrained(folder)
    return folder


def _save_siglip(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        SiglipVisionModel(SiglipVisionConfig(**SMALL, hidden_size=32, num_hidden_layers=3)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def _save_swin(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        SwinModel(
            SwinConfig(image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 2], window_size=4)
        ).save_pretrained(folder)
    _padding(64).save_pretrained(folder)
    return folder


def _edit_json(path: Path, **fields) -> None:
    """Set fields of a JSON file; a dotted name goes one level down."""
    content = json.loads(path.read_text())
    for name, value in fields.items():
        *parents, last = name.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    return _save_clip(tmp_path_factory.mktemp("clip") / "tower")


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory) -> Path:
    return _save_siglip(tmp_path_factory.mktemp("siglip") / "tower")


@pytest.fixture(scope="session")
def swin_folder(tmp_path_factory) -> Path:
    return _save_swin(tmp_path_factory.mktemp("swin") / "tower")


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("host") / "tiny")


@pytest.fixture(scope="session")
def tiny_hosts(tmp_path_factory):
    """Makes a tiny host of a family, once."""
    folder = tmp_path_factory.mktemp("hosts")

    def make(name: str) -> Path:
        needs = FAMILIES[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            pytest.skip(f"{name} needs the package {needs}")
        return make_tiny_of(folder / name, name)

    return make


@pytest.fixture(scope="session")
def runs(tmp_path_factory, clip_folder) -> Path:
    """A folder of runs with one export, whose tower is that of `clip_folder`."""
    folder = tmp_path_factory.mktemp("runs")
    export = folder / "small" / "export"
    shutil.copytree(clip_folder, export / "clip_vision_model")
    (export / "config.json").write_text(json.dumps({"model_type": "cloc"}))
    files = {"clip_vision_model/model.safetensors": hash_file(clip_folder / "model.safetensors")}
    card = {"schema": 1, "time": "2026-01-01T00:00:00", "objective": "cloc", "model_sha256": "0" * 64, "files": files}
    (export / "export.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def swapped_once(tmp_path_factory, host_folder, clip_folder) -> Path:
    out = tmp_path_factory.mktemp("swapped") / "host"
    swap(host_folder, clip_folder, out, device="cpu")
    return out


@pytest.fixture
def swapped(swapped_once, tmp_path) -> Path:
    """A verified host with the CLIP tower in it, to be spoilt."""
    return Path(shutil.copytree(swapped_once, tmp_path / "host"))


@pytest.fixture(scope="session")
def encoder(clip_folder):
    return load_encoder(clip_folder, Path("runs"))


@pytest.fixture(scope="session")
def save_clip():
    return _save_clip


@pytest.fixture(scope="session")
def edit_json():
    return _edit_json
