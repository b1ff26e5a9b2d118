"""Code that lies in a model's folder never runs: every loading call refuses it, whatever is answered to a question."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import cloc.detect.__main__
import cloc.embed.__main__
import cloc.export.__main__
import cloc.label.__main__
import cloc.pretrain
from benchmarks import cli
from cloc.towers.external import write_external
from mllm_bridge.assess import command as assess
from mllm_bridge.hosts.tiny import make_tiny
from mllm_bridge.swap import command as swap
from mllm_bridge.tune import command as tune

REPOSITORY = Path(__file__).resolve().parents[2]
LOADERS = ("from_pretrained", "from_config", "pipeline", "load_dataset", "get_config_dict", "get_tokenizer_config")
OURS = ("RegionHost.from_pretrained", "host = RegionHost.from_pretrained")
CODE = """import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import CLIPConfig as C, CLIPModel as M, CLIPTokenizer as T
from transformers import CLIPImageProcessor as I, CLIPProcessor as P
"""
AUTO = ("AutoConfig", "AutoModel", "AutoModelForZeroShotObjectDetection", "AutoModelForImageTextToText")


def test_every_call_that_loads_something_refuses_a_folders_code():
    for package in ("cloc", "mllm_bridge", "benchmarks"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or ast.unparse(node.func) in OURS:
                    continue
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in LOADERS:
                    told = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert told.get("trust_remote_code") == "False", f"{path}:{node.lineno}"


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that hostile code writes; to every question the answer is yes."""
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "it-ran"
    assert not (tmp_path / "it-ran").exists()


def edit(path, **fields):
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **fields}))


def spoil(folder, kind, marker):
    """Give a model's folder code of its own, named in one of its files."""
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    if kind == "config":
        edit(folder / "config.json", model_type="evil", auto_map={name: "evil.C" for name in AUTO})
    elif kind == "model":
        edit(folder / "config.json", auto_map={name: "evil.M" for name in AUTO[1:]}, architectures=["M"])
    elif kind == "inside":  # transformers makes the tower itself, without being told anything about trust
        named = {"AutoModel": f"{folder}--evil.M"}
        edit(folder / "config.json", vision_config={"model_type": "clip_text_model_x", "auto_map": named})
    elif kind == "tokenizer":
        named = {"AutoTokenizer": ["evil.T", "evil.T"]}
        edit(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map=named)
        edit(folder / "config.json", auto_map=named)
    elif kind == "processor":
        for name in ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                edit(folder / name, image_processor_type="Evil", processor_class="Evil")
                edit(folder / name, auto_map={"AutoProcessor": "evil.P", "AutoImageProcessor": "evil.I"})
        if (folder / "processor_config.json").is_file():
            part = {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.I"}}
            edit(folder / "processor_config.json", image_processor=part)
    return folder


SLOW = pytest.mark.slow
KINDS = ("config", *(pytest.param(kind, marks=SLOW) for kind in ("model", "inside", "tokenizer", "processor")))
"""One by default, all with the slow ones."""


def refused(code, told):
    """Done without the code, or one line and status 2."""
    lines = [line for line in told.err.splitlines() if line.strip() and "/s]" not in line]
    assert code == 0 or (code == 2 and lines[-1].startswith("error: ") and len(lines) == 1), told.err


@pytest.mark.parametrize("kind", KINDS)
def test_an_export(kind, marker, spine_export, capsys, tmp_path):
    folder = spoil(spine_export(), kind, marker)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    told = str(folder)
    capsys.readouterr()
    refused(cli.main(["refcoco", "--model", told, "--out", "bench"]), capsys.readouterr())
    refused(cloc.embed.__main__.main(["a.png", "--model", told, "--out", "v.parquet"]), capsys.readouterr())
    refused(cloc.detect.__main__.main(["a.png", "--model", told, "--classes", "cat"]), capsys.readouterr())
    for name in ("transformers", "open_clip"):
        refused(cloc.export.__main__.main([told, f"out-{name}", "--format", name]), capsys.readouterr())
    refused(swap.main(["--encoder", told, "--mllm", told, "--out", "host"]), capsys.readouterr())


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower(kind, marker, spine_export, capsys, tmp_path):
    folder = spoil(spine_export() / "clip_vision_model", kind, marker)
    host = make_tiny(tmp_path / "host")
    capsys.readouterr()
    refused(swap.main(["--encoder", str(folder), "--mllm", str(host), "--out", "out"]), capsys.readouterr())


@pytest.mark.parametrize("kind", KINDS)
def test_a_host(kind, marker, capsys, tmp_path, spine_export):
    tower = spine_export() / "clip_vision_model"
    folder = spoil(make_tiny(tmp_path / "host"), kind, marker)
    (folder / "places.json").write_text(json.dumps({"schema": 1, "order": "xyxy", "scale": "unit", "padded": True}))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    entries = [{"id": n, "image": "a.png", "conversations": turns} for n in range(2)]
    (tmp_path / "talk.json").write_text(json.dumps(entries))
    refused(swap.main(["--encoder", str(tower), "--mllm", str(folder), "--out", "out"]), capsys.readouterr())
    told = [f"host={folder}", "data=[{path: talk.json}]", "train.steps=1", "train.batch_size=2", "run.device=cpu"]
    config = str(REPOSITORY / "configs/bridge/tiny.yaml")
    refused(tune.main(["--config", config, *told]), capsys.readouterr())
    refused(assess.main([str(folder), "--captions", "talk.json"]), capsys.readouterr())
    refused(cli.main(["pope", "--model", str(folder), "--out", "bench"]), capsys.readouterr())


def empty_model(folder, family):
    """A folder that says it is a model of this family, whose weights belong to none."""
    folder.mkdir()
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    edit(folder / "config.json", model_type=family)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", KINDS[:1] + KINDS[3:])
@pytest.mark.parametrize(
    "family", ["clip", *(pytest.param(name, marks=SLOW) for name in ("owlv2", "kosmos-2", "llava"))]
)
def test_a_model_of_others(family, kind, marker, capsys, tmp_path, spine_shards):
    folder = spoil(empty_model(tmp_path / "model", family), kind, marker)
    capsys.readouterr()
    task = "lvis" if family == "owlv2" else "refcoco"
    refused(cli.main([task, "--model", str(folder), "--out", "bench"]), capsys.readouterr())
    role = "--captioner" if family == "llava" else "--detector"
    label = ["--shards", str(spine_shards), "--out", "labelled", role, str(folder)]
    refused(cloc.label.__main__.main(label), capsys.readouterr())


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]])
@pytest.mark.parametrize("field", ["model.vision.source", "model.text.source", "model.source", "model.text.tokenizer"])
def test_starting_weights(field, kind, marker, capsys, tmp_path, spine_raw):
    folder = spoil(empty_model(tmp_path / "model", "clip"), kind, marker)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spine_raw(train__steps=1)))
    capsys.readouterr()
    refused(cloc.pretrain.main(["--config", "tiny.yaml", f"{field}={folder}"]), capsys.readouterr())


def test_a_text_tower_that_open_clip_loads_through_transformers(marker, tmp_path):
    folder = tmp_path / "towers"
    folder.mkdir()
    text = spoil(shutil.copytree(make_tiny(tmp_path / "host"), tmp_path / "text"), "config", marker)
    model = {"embed_dim": 16, "vision_cfg": {"layers": 1, "width": 64, "image_size": 32, "patch_size": 16}}
    model["text_cfg"] = {"hf_model_name": str(text), "hf_tokenizer_name": str(text)}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    (folder / "open_clip_model.safetensors").write_bytes(b"0" * 16)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"runs no code from a model's folder|cannot load it"):
        write_external(folder, tmp_path / "out")
