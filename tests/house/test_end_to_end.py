"""The whole way on a tiny world: render, train CLIP and CLOC, export, swap into a tiny LLaVA, score both."""

import json

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, CLIPVisionModel

from benchmarks import cli
from cloc import pretrain
from cloc.export import find_newest_export, read_card
from mllm_bridge.swap import command as swap

STEPS = 8


@pytest.fixture
def trained(spine_raw, spine_ranks, tmp_path, monkeypatch):
    """A folder in which both objectives have been trained for a few steps."""
    monkeypatch.chdir(tmp_path)
    for objective in ("clip", "cloc"):
        raw = spine_raw(run__name=objective, objective=objective, train__steps=STEPS)
        (tmp_path / f"{objective}.yaml").write_text(yaml.safe_dump(raw))
        assert spine_ranks(1, lambda rank, o=objective: pretrain.main(["--config", f"{o}.yaml"])) == [0]
    return tmp_path


@pytest.mark.multiprocess
def test_render_train_export_swap_score(trained, spine_world, capfd):
    export = find_newest_export(trained / "runs")
    assert export.relative_to(trained).as_posix() == "runs/cloc/export"
    card = read_card(export)
    assert (card["objective"], card["steps"], card["data"][0]["rendered"]) == ("cloc", STEPS, True)

    assert swap.main(["--encoder", "cloc", "--out", "swapped", "--device", "cpu"]) == 0
    host = AutoModelForImageTextToText.from_pretrained("swapped")
    tower = CLIPVisionModel.from_pretrained(export / "clip_vision_model")
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = (t(pixels, output_hidden_states=True) for t in (tower, host.model.vision_tower))
    assert torch.equal(ours.hidden_states[-2], theirs.hidden_states[-2])

    call = ["region_recognition", "refcoco", "--data", str(spine_world), "--against", "clip", "--out", "scores"]
    assert cli.main([*call, "--device", "cpu", "--limit", "4"]) == 0
    rows = json.loads((trained / "scores" / "results.json").read_text())["rows"]
    assert {row["task"] for row in rows} == {"region_recognition", "refcoco"}
    assert {row["data"] for row in rows} == {"rendered"}
    scored = [row for row in rows if row["value"] is not None]
    assert {"cloc", "clip"} <= {row["model"] for row in scored}
    shas = {row["model"]: row["model_sha256"] for row in scored}
    assert shas["cloc"] == card["model_sha256"]
    assert any(row["metric"].endswith("_difference") for row in scored)
    told = capfd.readouterr().out
    assert "scores/results.json" in told
