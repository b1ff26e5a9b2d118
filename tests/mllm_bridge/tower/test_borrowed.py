"""Towers of timm and open_clip go into hosts: from their own folders and files, with no network."""

import json
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from cloc.towers.external import is_external
from cloc.towers.probe import make_probe_images
from mllm_bridge.encoder import load_encoder
from mllm_bridge.swap.command import swap

VIT = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
SWIN = {"img_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2]}
DATA = {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5, 0.4, 0.3], "std": [0.2] * 3}
NO_RUNS = Path("runs")


def _save_timm(folder: Path, name: str, arguments: dict, **data) -> Path:
    folder.mkdir()
    torch.manual_seed(4)
    model = timm.create_model(name, num_classes=3, **arguments)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    told = {"input_size": [3, *[arguments["img_size"]] * 2], "classifier": "head", **DATA, **data}
    config = {"architecture": name, "num_classes": 3, "model_args": arguments, "pretrained_cfg": told}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("borrowed")


@pytest.fixture(scope="module")
def vit(folder):
    return _save_timm(folder / "vit", "vit_base_patch16_224", VIT)


@pytest.fixture(scope="module")
def swin(folder):
    return _save_timm(folder / "swin", "swin_tiny_patch4_window7_224", SWIN)


def _model_config():
    return {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 48, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }


@pytest.fixture(scope="module")
def clip(folder):
    out = folder / "clip"
    out.mkdir()
    torch.manual_seed(5)
    model = open_clip.CLIP(**_model_config())
    for weight in model.visual.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (out / "open_clip_config.json").write_text(json.dumps({"model_cfg": _model_config(), "preprocess_cfg": preprocess}))
    return out


def _pixels(encoder):
    return encoder.image_processor(images=make_probe_images()["2:1"], return_tensors="pt")["pixel_values"]


@torch.no_grad()
def test_a_timm_vit_gives_timms_own_tokens_on_timms_own_pixels(vit):
    encoder = load_encoder(f"timm:{vit}", NO_RUNS)
    assert (encoder.facts.kind, encoder.facts.patches, encoder.facts.hidden_states) == ("plain", 36, 4)
    plain = timm.create_model(f"local-dir:{vit}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=plain))
    pixels = _pixels(encoder)
    assert (
        pixels[0] - transform(make_probe_images()["2:1"])
    ).abs().max() < 0.05  # two ways of resizing: 2 grey levels at most
    out = encoder.tower(pixels, output_hidden_states=True)
    assert torch.equal(out.last_hidden_state, plain.forward_features(pixels)[:, 1:])
    blocks = plain.forward_intermediates(pixels, intermediates_only=True, output_fmt="NLC")
    assert all(torch.equal(found, own) for found, own in zip(out.hidden_states[1:], blocks, strict=True))
    assert torch.equal(encoder.tower(pixels).last_hidden_state, out.last_hidden_state)


@pytest.mark.parametrize(("tower", "patches"), [("vit", 36), ("swin", 16)])
@pytest.mark.parametrize("host", ["llava", "gemma3"])
def test_a_timm_tower_goes_in_through_the_wrapper(tmp_path, folder, vit, swin, tiny_hosts, tower, patches, host):
    report = swap(tiny_hosts(host), folder / tower, tmp_path / "out", full_verify=True, device="cpu")
    assert (report.tower_after["form"], report.tower_after["patches"]) == ("wrapper", patches)
    assert {"tower features", "save and reload"} <= {check.name for check in report.checks}
    assert report.encoder_folder == str(folder / tower)


def test_a_timm_name_with_a_file(tmp_path, host_folder):
    model = timm.create_model("test_vit", num_classes=0)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    report = swap(host_folder, f"timm:test_vit:{tmp_path / 'w.safetensors'}", tmp_path / "out", device="cpu")
    assert (report.tower_after["width"], report.tower_after["patches"]) == (64, 100)
    host = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    found = host.model.vision_tower.tower.timm_model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["", "open_clip:"])
def test_a_vit_of_open_clip_goes_in_as_a_plain_clip_tower(tmp_path, host_folder, clip, name):
    encoder = load_encoder(f"{name}{clip}", NO_RUNS)
    assert (encoder.facts.model_type, encoder.facts.kind, encoder.facts.width) == ("clip_vision_model", "cls", 32)
    plain, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    pixels = _pixels(encoder)
    assert (pixels[0] - transform(make_probe_images()["2:1"])).abs().max() < 0.05
    own = plain.eval().visual.forward_intermediates(pixels, output_fmt="NLC")["image_intermediates"]
    found = encoder.tower(pixels, output_hidden_states=True).hidden_states[1:]
    for a, b in zip(found, own, strict=True):
        torch.testing.assert_close(a[:, 1:], b, rtol=1e-4, atol=1e-4)
    report = swap(host_folder, f"{name}{clip}", tmp_path / "out", full_verify=True, device="cpu")
    assert report.tower_after["form"] == "stock"


def test_geometry_without_a_counterpart_is_not_guessed(tmp_path, host_folder, clip_folder):
    odd = _save_timm(tmp_path / "odd", "vit_base_patch16_224", VIT, crop_mode="border")
    with pytest.raises(ValueError, match=r"crop_mode 'border' has no image processor .*preprocessor_config.json"):
        load_encoder(odd, NO_RUNS)
    (odd / "preprocessor_config.json").write_bytes((clip_folder / "preprocessor_config.json").read_bytes())
    assert load_encoder(odd, NO_RUNS).facts.geometry.startswith("padded to a square")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("timm:no_such_tower", r"timm cannot load it \(Unknown model"),
        ("timm:resnet18:{file}", r"expected a ViT or Swin of timm with square images"),
        ("timm:test_vit:{folder}/w.bin", r"expected a .safetensors file, .*w.bin is none; nothing else is loaded"),
        ("open_clip:ViT-B-32", r"expected timm:ARCH, timm:ARCH:FILE, open_clip:ARCH:TAG"),
        ("open_clip:ViT-B-32:no_such_tag", r"open_clip cannot load it"),
    ],
)
def test_what_cannot_be_borrowed(tmp_path, asked, message):
    if "{file}" in asked:
        state = timm.create_model("resnet18", num_classes=0).state_dict()
        save_file(state, tmp_path / "w.safetensors")
    torch.save({}, tmp_path / "w.bin")
    with pytest.raises(ValueError, match=message):
        load_encoder(asked.format(file=tmp_path / "w.safetensors", folder=tmp_path), NO_RUNS)


def test_a_folder_of_transformers_is_not_borrowed(clip_folder, vit, clip):
    assert not is_external(clip_folder)
    assert not is_external("cloc")
    assert is_external(vit)
    assert is_external(clip)
