"""The loop and its two steppers, on tiny rendered scenes; whole runs go through `pretrain.main`."""

import errno
import json
import os
import re
import shlex
import signal
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cloc import pretrain
from cloc.data.shards import write_shards
from cloc.export import find_newest_export, read_card
from cloc.train import checkpoint, metric_logger

CARD = {"name": "made", "kind": "regions", "licence": "none", "made": {}}
MEASURED = {"samples_per_second", "samples_per_second_per_process", "resident_mib", "device_peak_mib"}


def metrics(runs, name="tiny"):
    return [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def start(spine_raw, spine_ranks, tmp_path):
    """Runs `pretrain.main` in `world` forked processes; returns the exit codes."""

    def run(world=1, arguments=(), env=(), **changes):
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(spine_raw(**changes)))
        call = ["--config", str(file), "--runs", str(tmp_path / "runs"), *arguments]
        return spine_ranks(world, lambda rank: pretrain.main(call), **dict(env))

    return run


def losses(runs, name="tiny"):
    return [entry["loss"] for entry in metrics(runs, name)]


def test_a_run_writes_every_figure_of_every_step(start, tmp_path):
    assert start() == [0]
    lines = metrics(tmp_path / "runs")
    assert [line["step"] for line in lines] == list(range(6))
    wanted = {
        "loss", "image_text", "region_text", "grounding", "image_text_accuracy", "region_text_accuracy",
        "filtered_negatives", "learning_rate", "gradient_norm", "samples", "num_regions", "num_images",
    }  # fmt: skip
    for line in lines:
        assert wanted <= set(line)
        share = line["num_images_with_regions"] / line["num_images"]
        assert line["loss"] == pytest.approx(line["image_text"] + share * (line["region_text"] + line["grounding"]))
    assert "samples_per_second" in lines[1]
    folder = tmp_path / "runs" / "tiny"
    assert (folder / "export" / "export.json").is_file()
    assert list((folder / "tensorboard").iterdir())
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-6"]


@pytest.mark.multiprocess
def test_two_processes_train_like_one(start, tmp_path):
    start(1, run__name="one")
    start(2, run__name="two")
    one, two = (metrics(tmp_path / "runs", name) for name in ("one", "two"))
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        for name in set(a) - MEASURED:
            assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-6), name


def test_accumulated_batches_are_averaged_and_their_counts_added(start, tmp_path):
    start(train__accumulation=2, train__steps=2, run__name="twice")
    start(train__steps=2, run__name="once")
    twice, once = metrics(tmp_path / "runs", "twice"), metrics(tmp_path / "runs", "once")
    assert twice[0]["samples"] == 2 * once[0]["samples"] == 16
    # the first step's two batches are the first two steps' batches at the starting weights; the first is the same
    assert twice[0]["num_images"] == 16
    assert twice[0]["loss"] != once[0]["loss"]


def test_a_taken_name_gets_a_number_and_runs_are_equal(start, tmp_path):
    start()
    start()
    assert losses(tmp_path / "runs", "tiny-2") == losses(tmp_path / "runs")


def test_workers_change_nothing(start, tmp_path):
    start()
    start(run__workers=2, run__name="busy")
    assert losses(tmp_path / "runs", "busy") == losses(tmp_path / "runs")


def test_losses_that_leave_the_numbers_stop_the_run(start, tmp_path, capfd):
    assert start(optim__lr=1e30, optim__warmup_steps=0) == [1]
    told = capfd.readouterr().err
    assert "is not finite" in told
    assert "rank 0 held 8 samples: 0000" in told
    assert not (tmp_path / "runs" / "tiny" / "export").exists()


def stop_after(runs, count, number, group):
    """Send a signal to this process (or its whole group) once `count` steps are logged, if it is there then."""
    parent, file = os.getpid(), runs / "tiny" / "metrics.jsonl"
    if os.fork():
        return
    try:
        signal.signal(number, signal.SIG_IGN)  # one of the group itself
        while os.getppid() == parent:
            if file.exists() and file.read_text().count("\n") >= count:
                (os.killpg if group else os.kill)(parent, number)
                break
            time.sleep(0.01)
    finally:
        os._exit(0)


@pytest.mark.parametrize(
    ("number", "group", "workers"),
    [(signal.SIGTERM, False, 0), (signal.SIGINT, True, 2), (signal.SIGTERM, True, 2)],
    ids=["SIGTERM", "Ctrl-C with workers", "SIGTERM to the whole group, as launchers send it"],
)
def test_asked_to_stop_it_saves_and_ends(number, group, workers, spine_raw, spine_ranks, tmp_path):
    file, runs = tmp_path / "config.yaml", tmp_path / "runs"
    file.write_text(yaml.safe_dump(spine_raw(train__steps=5000, run__workers=workers)))

    def work(rank):
        os.setpgrp()
        stop_after(runs, 3, number, group)
        return pretrain.main(["--config", str(file), "--runs", str(runs)])

    assert spine_ranks(1, work) == [128 + number]
    steps = len(metrics(runs))
    assert 3 <= steps < 5000
    assert [path.name for path in (runs / "tiny" / "checkpoints").iterdir()] == [f"step-{steps}"]
    assert not (runs / "tiny" / "export").exists()


def commands_in(told):
    """The arguments of every command line of pretrain that a text tells a user to paste."""
    lines = re.findall(r": python \S*pretrain\.py (.*)$", told, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def interrupting(step):
    def logged(meter, number, *figures):
        step(meter, number, *figures)
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)

    return logged


def test_what_a_stopped_run_tells_to_paste_works_and_it_can_be_made_longer(
    spine_raw, spine_ranks, tmp_path, capfd, monkeypatch
):
    """Stopped after its third step it is exported as it stands, goes on, and once finished goes on for longer."""
    file, folder = tmp_path / "config.yaml", tmp_path / "my runs" / "tiny"
    file.write_text(yaml.safe_dump(spine_raw()))

    def start(command, stop=False):
        with monkeypatch.context() as patch:
            if stop:
                patch.setattr(metric_logger.MetricLogger, "step", interrupting(metric_logger.MetricLogger.step))
            return spine_ranks(1, lambda rank: pretrain.main(command))[0]

    assert start(["--config", str(file), "--runs", str(folder.parent)], stop=True) == 130
    on, export = commands_in(capfd.readouterr().out)
    assert start(export) == 0
    card = read_card(tmp_path / "my runs" / "tiny-unfinished")
    assert (card["steps"], card["samples"], card["unfinished"]) == (3, 24, {"steps": 6})
    kept = load_file(folder / "checkpoints/step-3/model.safetensors")
    exported = load_file(tmp_path / "my runs/tiny-unfinished/model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in exported.items())
    assert "unfinished: exported before" in (tmp_path / "my runs/tiny-unfinished/README.md").read_text()
    (tmp_path / "my runs/other").mkdir()
    os.rename(tmp_path / "my runs/tiny-unfinished", tmp_path / "my runs/other/export")
    with pytest.raises(ValueError, match="no finished export"):
        find_newest_export(folder.parent)

    assert start(on) == 0
    assert find_newest_export(folder.parent) == folder / "export"
    assert start([*on, "train.steps=8"]) == 0
    assert [entry["step"] for entry in metrics(folder.parent)] == list(range(8))
    assert (read_card(folder / "export")["steps"], read_card(folder / "export-steps-6")["steps"]) == (8, 6)


def test_a_full_disk_in_training_is_one_line_and_the_run_goes_on(spine_raw, spine_ranks, tmp_path, capfd, monkeypatch):
    file, runs = tmp_path / "config.yaml", tmp_path / "runs"
    file.write_text(yaml.safe_dump(spine_raw(train__checkpoint_every=2)))
    finish = checkpoint.finish

    def full(temporary, state, keep):
        if state["step"] == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
        return finish(temporary, state, keep)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "finish", full)
        assert spine_ranks(1, lambda rank: pretrain.main(["--config", str(file), "--runs", str(runs)])) == [2]
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert "the disk is full" in line
    assert [path.name for path in (runs / "tiny" / "checkpoints").iterdir()] == ["step-2"]
    (command,) = commands_in(line)
    assert spine_ranks(1, lambda rank: pretrain.main(command)) == [0]


def made_of(samples, tmp_path):
    write_shards(samples, tmp_path / "own", CARD)
    return [{"path": str(tmp_path / "own"), "batch_size": 2}]


def broken(sample):
    return type(sample)(sample.key, sample.image[:200], "jpg", 40, 30, "c", sample.regions)


@pytest.mark.multiprocess
def test_what_every_rank_skipped_is_counted(start, spine_sample, tmp_path):
    """All samples of an epoch are seen in 4 steps; two broken ones are found, whichever rank they fall to."""
    samples = [spine_sample(f"s{i}", kind="JPEG", regions=[((1, 1, 9, 9), "cat")]) for i in range(8)]
    samples[2], samples[5] = broken(samples[2]), broken(samples[5])
    data = made_of(samples, tmp_path)
    data[0]["batch_size"] = 4
    assert start(2, data=data, train__steps=2) == [0, 0]
    assert metrics(tmp_path / "runs")[-1]["skipped_so_far"] == {"broken_image": 2}


def test_a_batch_of_nothing_but_broken_samples_is_refused_in_words(start, spine_sample, tmp_path, capfd):
    samples = [spine_sample(f"s{i}", kind="JPEG", regions=[((1, 1, 9, 9), "cat")]) for i in range(8)]
    data = made_of([broken(sample) for sample in samples[:7]] + samples[7:], tmp_path)
    data[0]["batch_size"] = 2
    assert start(data=data) == [2]
    told = capfd.readouterr().err
    assert re.search(r"step [01]: not one usable sample in the whole batch \(broken_image 2\); look", told), told


def test_a_source_of_nothing_but_broken_samples_is_refused_before_a_run(start, spine_sample, tmp_path, capfd):
    samples = [broken(spine_sample(f"s{i}", kind="JPEG", regions=[((1, 1, 9, 9), "cat")])) for i in range(8)]
    assert start(data=made_of(samples, tmp_path)) == [2]
    assert "none of the 8 samples looked at, of 8, can be used (broken_image 8)" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_nothing_is_left_behind_by_a_run_that_cannot_start(start, tmp_path, capfd):
    assert start(train__deepspeed="configs/deepspeed/zero9.json") == [2]
    assert "zero9.json is no file" in capfd.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.multiprocess
def test_more_ranks_than_the_batch_serves_is_one_clear_error(start, spine_shards, tmp_path, capfd):
    assert start(2, data=[{"path": str(spine_shards), "batch_size": 7}]) == [2, 2]
    assert "batch_size 7 does not divide among 2 ranks; use a multiple of 2, such as 8" in capfd.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))


def test_signals_are_given_back_after_training(start, spine_raw, spine_ranks, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(spine_raw(train__steps=1)))

    def work(rank):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        pretrain.main(["--config", str(file), "--runs", str(tmp_path / "runs")])
        return before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))

    assert spine_ranks(1, work) == [True]


def test_torch_stepper_sums_and_clips(spine_model):
    from cloc.train.optim import make_adamw, parameter_groups
    from cloc.train.stepper import TorchStepper

    model = spine_model()
    optimizer = make_adamw(parameter_groups(model, 0.1, {"text": 0.5}), 1.0, (0.9, 0.98), 1e-6)
    stepper = TorchStepper(model, optimizer, accumulation=2, max_norm=1.0, bf16=False)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):
        stepper.backward(sum(p.sum() for p in model.parameters()))
    norm = stepper.step(0.01)
    count = sum(p.numel() for p in model.parameters())
    assert norm == pytest.approx(count**0.5, rel=1e-4)  # two halves of an all-one gradient, before the cut
    assert {group["lr"] for group in optimizer.param_groups} == {0.01, 0.005}
    moved = before["vision.visual_projection.weight"] - model.vision.visual_projection.weight
    assert float(moved.abs().max()) > 0.005
    assert all(p.grad is None for p in model.parameters())
    assert torch.isfinite(model.text_projection.weight).all()
