"""Every format is read back by the library it is for, in this file without any help of ours."""

import json
import shutil

import open_clip
import pytest
import timm
import torch
from safetensors import SafetensorError
from transformers import AutoModel, CLIPVisionModel

from cloc.export import __main__ as export_formats
from cloc.towers.tower import encode, feature_maps, image_side

CLIP = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2, "mlp_ratio": 2.5}
VISIONS = {
    "clip": CLIP,
    "quick": {**CLIP, "hidden_act": "quick_gelu"},
    "siglip": {**CLIP, "style": "siglip", "mlp_ratio": 4.0, "hidden_act": "gelu_pytorch_tanh"},
    "swin": {
        "style": "swin",
        "image_size": 64,
        "patch_size": 4,
        "width": 8,
        "heads": 1,
        "depths": [1, 2, 1, 1],
        "window": 2,
    },
    "timm": {
        "style": "timm",
        "timm": "vit_tiny_patch16_224",
        "image_size": 32,
        "timm_args": {"depth": 2, "embed_dim": 24, "num_heads": 2},
    },
}


CACHE: dict = {}


@pytest.fixture
def made(spine_export):
    """An export with a tower of that kind, and its model; made once for all tests, which only read it."""

    def make(kind, **changes):
        key = (kind, str(changes))
        if key not in CACHE:
            folder = spine_export(kind, model__vision=VISIONS[kind], **changes)
            CACHE[key] = (folder, AutoModel.from_pretrained(folder).eval())
        return CACHE[key]

    return make


def pictures(model):
    side = image_side(model.config.vision_config.tower)
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize("kind", VISIONS)
def test_every_tower_comes_back_from_an_export(kind, made, spine_model):
    """The whole export, and the tower alone as its own library reads it."""
    folder, model = made(kind)
    trained = spine_model(model__vision=VISIONS[kind]).eval()
    pixels = pictures(model)
    torch.testing.assert_close(model.get_image_features(pixels), trained.get_image_features(pixels))
    alone = AutoModel.from_pretrained(folder / model.config.vision_config.tower.model_type).eval()
    for mine, theirs in zip(encode(model.vision.tower, pixels), encode(alone, pixels), strict=True):
        torch.testing.assert_close(mine, theirs)


@torch.no_grad()
@pytest.mark.parametrize("kind", VISIONS)
def test_timm_reads_every_tower(kind, made, tmp_path):
    folder, model = made(kind)
    line = export_formats.convert(folder, "timm", tmp_path / "out")
    assert line == f"timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True)"
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    pixels, tower = pictures(model), model.vision.tower
    torch.testing.assert_close(theirs(pixels), encode(tower, pixels)[1], atol=1e-5, rtol=1e-4)
    last = theirs.forward_intermediates(pixels, indices=1, intermediates_only=True)[0]
    torch.testing.assert_close(last, feature_maps(tower, pixels)[-1], atol=1e-5, rtol=1e-4)
    config = timm.data.resolve_model_data_config(theirs)
    assert tuple(config["input_size"]) == (3, *pixels.shape[2:])
    assert config["mean"] == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "quick"])
def test_open_clip_reads_both_towers(kind, made, tmp_path):
    act = VISIONS[kind].get("hidden_act", "gelu")
    text = {"width": 16, "layers": 1, "heads": 2, "context": 16, "hidden_act": act}
    folder, model = made(kind, model__text=text)
    export_formats.convert(folder, "open_clip", tmp_path / "out")
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    theirs.eval()
    pixels = pictures(model)
    torch.testing.assert_close(theirs.encode_image(pixels, normalize=True), model.get_image_features(pixels))
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(["a red ring", "two cats at night"])
    assert tokens.shape == (2, 16)
    ends = tokens.argmax(dim=1)
    attention = (torch.arange(16) <= ends[:, None]).long()
    ours = model.get_text_features(tokens, attention)
    torch.testing.assert_close(theirs.encode_text(tokens, normalize=True), ours)
    assert float(theirs.logit_scale) == pytest.approx(float(model.logit_scale))
    assert "Resize" in str(preprocess)


@torch.no_grad()
def test_clip_vision_model_needs_nothing_of_ours(made, tmp_path):
    folder, model = made("clip")
    assert export_formats.main([str(folder), str(tmp_path / "out"), "--format", "clip_vision_model"]) == 0
    theirs = CLIPVisionModel.from_pretrained(tmp_path / "out").eval()
    pixels = pictures(model)
    assert torch.equal(theirs(pixels).pooler_output, encode(model.vision.tower, pixels)[1])


@torch.no_grad()
def test_transformers_is_the_export_itself(made, tmp_path):
    folder, model = made("swin")
    export_formats.convert(folder, "transformers", tmp_path / "deep" / "out")
    again = AutoModel.from_pretrained(tmp_path / "deep" / "out").eval()
    assert torch.equal(again.get_image_features(pictures(model)), model.get_image_features(pictures(model)))


def test_what_a_format_cannot_hold_is_said(made, tmp_path, capsys):
    swin, _ = made("swin")
    with pytest.raises(ValueError, match=r"its tower is a swin, which no CLIPVisionModel can hold; .*/swin is the"):
        export_formats.convert(swin, "clip_vision_model", tmp_path / "a")
    with pytest.raises(ValueError, match=r"--format open_clip: its ViT pools by CLS, the tower is a swin"):
        export_formats.convert(swin, "open_clip", tmp_path / "a")
    quick, _ = made("quick")
    with pytest.raises(ValueError, match=r"the text tower has 'gelu' and the vision tower 'quick_gelu'"):
        export_formats.convert(quick, "open_clip", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.glob(".*part"))
    (tmp_path / "taken").mkdir()
    capsys.readouterr()
    assert export_formats.main([str(quick), str(tmp_path / "taken"), "--format", "timm"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'taken'}: already there; give another folder\n"
    assert export_formats.main([str(tmp_path), str(tmp_path / "b"), "--format", "timm"]) == 2
    assert "no export (export.json is missing)" in capsys.readouterr().err


def test_a_folder_with_other_values_is_not_kept(made, tmp_path, monkeypatch):
    folder, _ = made("clip")

    def spoilt(tower, out):
        model = write(tower, out)
        model.norm.weight.data.mul_(1.01)
        return model

    write = export_formats.write_timm
    monkeypatch.setattr(export_formats, "write_timm", spoilt)
    with pytest.raises(ValueError, match=r"pooled vector: the folder written differs from the export by 0\.01"):
        export_formats.convert(folder, "timm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_timm_config_tells_the_shape(made, tmp_path):
    folder, _ = made("clip")
    export_formats.convert(folder, "timm", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["architecture"] == "vit_base_patch16_clip_224"
    assert told["model_args"]["depth"] == 2


def test_a_cut_export_is_one_line(made, tmp_path, capsys):
    cut = shutil.copytree(made("clip")[0], tmp_path / "cut")
    (cut / "model.safetensors").write_bytes(b"cut")
    assert export_formats.main([str(cut), str(tmp_path / "out"), "--format", "timm"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {cut}: weights or processor cannot be read (")
    assert told.count("\n") == 1


def test_a_full_disk_and_a_quicker_process_are_one_line_and_leave_nothing(spine_export, tmp_path, capsys, monkeypatch):
    export, out = spine_export(), tmp_path / "made" / "out"

    def full(export, part):
        (part / "half").write_bytes(b"x")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setitem(export_formats.FORMATS, "timm", full)
    assert export_formats.main([str(export), str(out), "--format", "timm"]) == 2
    assert f"error: the disk is full under {out}" in capsys.readouterr().err
    monkeypatch.setitem(export_formats.FORMATS, "timm", lambda export, part: str((out / "theirs").mkdir(parents=True)))
    assert export_formats.main([str(export), str(out), "--format", "timm"]) == 2
    assert "appeared meanwhile, written by another process" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_line_that_loads_names_the_folder_and_steers_no_terminal(made, tmp_path, capsys):
    out = tmp_path / "a\x1b[31m 'b'"
    assert export_formats.main([str(made("swin")[0]), str(out), "--format", "timm"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert ".part" not in told
    assert out.is_dir()
