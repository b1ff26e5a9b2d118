import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from cloc.box_text import BoxTextFormat
from cloc.train import metric_logger
from mllm_bridge.tune import batches, result
from mllm_bridge.tune.command import main
from mllm_bridge.weights.stored import FolderWeights, read_tensors


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Each process takes one core, so that tests do not wait for threads on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_WORLD_SIZE", str(len(os.sched_getaffinity(0))))
        yield


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """16 conversations, every fourth without an image, and one that cannot be used."""
    folder, rows = tmp_path_factory.mktemp("talks"), []
    for number in range(16):
        draw = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(draw).resize((40, 32)).save(folder / f"{number}.png")
        question, more = "Say it", {}
        if number % 4:
            question, more = "<image>\nWhat is <region>?", {"image": f"{number}.png", "regions": [[2, 3, 20, 30]]}
        answer = {"from": "gpt", "value": "ring " * (number % 3 + 1)}
        rows.append({"id": number, "conversations": [{"from": "human", "value": question}, answer], **more})
    rows.append({"id": "bad", "image": "gone.png", "conversations": []})
    (folder / "talks.json").write_text(json.dumps(rows))
    return folder / "talks.json"


def _command(talks, host, runs, *more):
    return [
        "--runs", str(runs), f"host={host}", f"data.0.path={talks}", "train.steps=5", "train.batch_size=2",
        "train.checkpoint_every=2", "train.keep_checkpoints=3", "run.workers=0", "optim.lr=0.02", *more,
    ]  # fmt: skip


def _losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, talks, swapped_once):
    runs = tmp_path_factory.mktemp("runs")
    assert main(_command(talks, swapped_once, runs)) == 0
    return runs / "tune"


def _logits(folder):
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=Image.new("RGB", (40, 30), "red"), text="user: <image>\nWhat?", return_tensors="pt")
    with torch.no_grad():
        return AutoModelForImageTextToText.from_pretrained(folder).eval()(**inputs).logits


def test_the_result_is_a_stock_folder_that_was_trained(finished, swapped_once):
    card = json.loads((finished / "host" / "tune.json").read_text())
    assert card["logits"]["reload"] <= 1e-5
    assert card["logits"]["merge"] <= 1e-5
    assert card["skipped"] == {"missing_image": 1}
    assert BoxTextFormat.load(finished / "host") == BoxTextFormat("unit", padded=True, digits=3)
    assert _losses(finished)[-1] < _losses(finished)[0]
    assert (_logits(finished / "host") - _logits(swapped_once)).abs().max() > 1e-3
    assert not (finished / "host" / "adapter_config.json").exists()
    tower = {name: value for name, value in _tensors(finished / "host").items() if "vision_tower" in name}
    before = _tensors(swapped_once)
    assert tower
    assert all(value.equal(before[name]) for name, value in tower.items())


def _tensors(folder):
    return dict(read_tensors(FolderWeights.open(folder).tensors))


def test_adapters_beside_the_weights_give_the_same_logits_as_merged_ones(finished, talks, swapped_once, tmp_path):
    assert main(_command(talks, swapped_once, tmp_path, "result.form=adapters", "run.trackers=[]")) == 0
    assert (finished / "tensorboard").is_dir()
    assert not (tmp_path / "tune" / "tensorboard").exists()  # figures go where the config says
    folder = tmp_path / "tune" / "host"
    assert _losses(tmp_path / "tune") == _losses(finished)
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] is None
    torch.testing.assert_close(_logits(folder), _logits(finished / "host"), rtol=1e-5, atol=1e-5)
    language = {name: value for name, value in _tensors(folder).items() if "language_model" in name}
    before = _tensors(swapped_once)
    assert all(value.equal(before[name]) for name, value in language.items())


class _KilledError(BaseException):
    """Nothing in the command may catch it, as nothing catches SIGKILL."""


def test_killed_and_resumed_gives_the_same_losses(finished, talks, swapped_once, tmp_path, monkeypatch):
    whole = batches.TuneBatches.batch

    def until_the_end(self, number):
        if number == 3:
            raise _KilledError
        return whole(self, number)

    monkeypatch.setattr(batches.TuneBatches, "batch", until_the_end)
    with pytest.raises(_KilledError):
        main(_command(talks, swapped_once, tmp_path))
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "tune" / "checkpoints").iterdir()] == ["step-2"]
    assert not (tmp_path / "tune" / "host").exists()
    assert main([*_command(talks, swapped_once, tmp_path), "--resume", "auto"]) == 0
    assert _losses(tmp_path / "tune") == _losses(finished)
    assert _logits(tmp_path / "tune" / "host").equal(_logits(finished / "host"))


@pytest.mark.multiprocess
def test_it_goes_on_elsewhere_with_the_same_losses(finished, talks, swapped_once, tmp_path, spine_ranks):
    """Plain torch, then two ranks under ZeRO 3, then plain torch again: a checkpoint holds whole tensors by name."""
    folder = tmp_path / "tune"
    shutil.copytree(finished, folder)
    _cut(folder, 2)
    command = [*_command(talks, swapped_once, tmp_path), "--resume", "auto"]
    scattered = [*command, "train.deepspeed=configs/deepspeed/zero3.json"]
    assert spine_ranks(2, lambda rank: main(scattered)) == [0, 0]
    assert _losses(folder) == pytest.approx(_losses(finished), rel=2e-4)
    _cut(folder, 4)
    assert main(command) == 0
    assert _losses(folder) == pytest.approx(_losses(finished), rel=2e-4)
    torch.testing.assert_close(_logits(folder / "host"), _logits(finished / "host"), rtol=1e-3, atol=1e-3)


def _cut(folder, step):
    """As if the run had been killed after a step."""
    shutil.rmtree(folder / "host")
    for checkpoint in (folder / "checkpoints").iterdir():
        if checkpoint.name != f"step-{step}":
            shutil.rmtree(checkpoint)
    kept = folder / "checkpoints" / f"step-{step}"
    assert {path.name for path in kept.iterdir()} == {"model.safetensors", "optimizer.safetensors", "state.json"}


def test_a_folder_that_does_not_give_the_same_logits_never_appears(talks, swapped_once, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(result, "_reloaded", lambda folder, built: _spoilt(built))
    assert main(_command(talks, swapped_once, tmp_path, "train.steps=1", "parts.language=frozen")) == 2
    assert "the logits differ after writing (reload" in capsys.readouterr().err
    assert not (tmp_path / "tune" / "host").exists()


def test_runs_inside_the_host_are_refused(talks, swapped_once, capsys):
    assert main(_command(talks, swapped_once, swapped_once / "runs")) == 2
    assert "lies in the host" in capsys.readouterr().err
    assert not (swapped_once / "runs").exists()


def _spoilt(built):
    with torch.no_grad():
        built.trainee.host.model.multi_modal_projector.linear_2.bias += 0.1
    return built.trainee


@pytest.mark.parametrize("form", ["merged", "adapters"])
def test_half_precision_hosts_stay_half_precision(talks, swapped_once, tmp_path, form):
    model = AutoModelForImageTextToText.from_pretrained(swapped_once, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "host")
    AutoProcessor.from_pretrained(swapped_once).save_pretrained(tmp_path / "host")
    asked = ["train.steps=1", "run.precision=bf16", f"result.form={form}"]
    assert main(_command(talks, tmp_path / "host", tmp_path, *asked)) == 0
    assert {value.dtype for value in _tensors(tmp_path / "tune" / "host").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["train.batch_size=400"], "train.batch_size=400, the files hold 16 conversations"),
        (["--resume", "auto"], "no unfinished run of this config"),
        (["data.0.path=gone.json"], "there is no such file"),
        (["host=gone"], "there is no folder gone"),
        (["regions.export=gone"], "gone"),
        (["train.deepspeed=gone.json"], "gone.json is no file"),
        (["run.trackers=[wandb]"], "run.trackers: wandb is not installed"),
    ],
)
def test_mistakes_are_one_line_and_status_2(talks, swapped_once, tmp_path, capsys, more, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(metric_logger, "find_spec", lambda name: None)
    assert main([*_command(talks, swapped_once, tmp_path), *more]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*/host"))


def test_bare_without_rendered_conversations_says_how_to_make_them(tmp_path, swapped_once, monkeypatch, capsys):
    monkeypatch.setenv("CLOC_DATA", str(tmp_path))
    assert main(["--runs", str(tmp_path), f"host={swapped_once}"]) == 2
    assert "python -m cloc.scenes" in capsys.readouterr().err
