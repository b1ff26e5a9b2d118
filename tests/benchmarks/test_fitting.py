"""Folders with parts of different models end with one line; so do Ctrl-C, a full disk and two runs into one folder."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
    Owlv2ImageProcessor,
    Owlv2Processor,
    SiglipImageProcessor,
)

from benchmarks import cli, evaluate
from benchmarks.cli import main
from benchmarks.out_folder import lock_results, open_out_folder
from benchmarks.predictors.loaded_models import load_model
from cloc.tokenizer import load_tokenizer


def clip(folder: Path, side: int = 16, width: int = 16) -> Path:
    """A tiny random CLIP as transformers saves it."""
    tokenizer = load_tokenizer("clip")
    words = CLIPTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=16)
    shared = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**shared, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "eos_token_id": 49407}
    vision = {**shared, "image_size": side, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    CLIPProcessor(images, words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("clip"))


def other_weights(folder, other):
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")


def other_config(folder, other):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    (folder / "config.json").write_text(json.dumps(config))


def other_processor(folder, other):
    for file in (*folder.glob("*processor*"), *folder.glob("tokenizer*")):
        file.unlink()
    words = CLIPTokenizerFast(tokenizer_object=load_tokenizer("clip").backend_tokenizer, model_max_length=16)
    Owlv2Processor(Owlv2ImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)


def other_images(folder, other):
    for file in folder.glob("*processor*"):
        file.unlink()
    SiglipImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)


def no_tokenizer(folder, other):
    for file in (*folder.glob("tokenizer*"), *folder.glob("processor_config*")):
        file.unlink()


def odd_fields(folder, other):
    (folder / "config.json").write_text(json.dumps({"model_type": ["clip"], "architectures": 7}))


MIXED = {f.__name__: f for f in (other_weights, other_config, other_processor, other_images, no_tokenizer, odd_fields)}


@pytest.mark.parametrize("name", MIXED)
def test_parts_of_different_models_are_one_line(name, whole, tmp_path, root, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(whole, folder)
    MIXED[name](folder, clip(tmp_path / "other", width=24) if name == "other_weights" else None)
    given = ["region_recognition", "--data", str(root), "--model", str(folder), "--out", str(tmp_path / "out")]
    assert main([*given, "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: ")
    assert "mixed" in line


def test_a_whole_folder_is_read(whole):
    side = load_model(whole, "cpu", 4)
    assert [reading.name for reading in side.predictors] == ["crop"]


def test_ctrl_c_ends_with_one_line_that_goes_on(root, exports, tmp_path, monkeypatch, capsys):
    given = ["region_recognition", "--data", str(root), "--model", str(exports["cloc"]), "--device", "cpu"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate.TaskRunner, "run", interrupted)
        assert main([*given, "--out", str(tmp_path / "out")]) == 130
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == f"stopped by Ctrl-C; add --resume {tmp_path / 'out'} to the same command to go on"
    assert not (tmp_path / "out" / ".lock").exists()
    assert main([*given, "--resume", str(tmp_path / "out")]) == 0
    monkeypatch.setattr(cli, "score_predictions", interrupted)
    assert main(["--predictions", "a", "--annotations", "b"]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def test_a_full_disk_is_one_line(root, exports, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(evaluate, "write_rows", full)
    given = ["region_recognition", "--data", str(root), "--model", str(exports["cloc"]), "--device", "cpu"]
    assert main([*given, "--out", str(tmp_path / "out"), "--limit", "2"]) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_two_runs_into_one_folder_are_kept_apart(root, exports, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    given = ["region_recognition", "--data", str(root), "--model", str(exports["cloc"]), "--device", "cpu"]
    with lock_results(out):
        assert main([*given, "--out", str(out), "--limit", "2"]) == 2
        assert f"another run is writing into {out}" in capsys.readouterr().err
    assert main([*given, "--out", str(out), "--limit", "2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["predictions", "report.html", "results.json"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with open_out_folder(None) as one, open_out_folder(None) as two:
        assert (one.name, two.name) == ("bench-1", "bench-2")
