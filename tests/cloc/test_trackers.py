"""Figures reach every tracker that was asked for; a missing package is said before a run starts."""

import json
import sys
import types
from collections import Counter

import pytest
import torch

from cloc import comm
from cloc.train import metric_logger
from cloc.train.metric_logger import MetricLogger


@pytest.fixture(params=["wandb", "trackio"])
def package(request, monkeypatch):
    """Its name, and what a stand-in for it is told, as if it were installed."""
    told = {"init": [], "log": [], "finished": 0}

    class Run:
        def log(self, figures, step):
            told["log"].append((step, figures))

        def finish(self):
            told["finished"] += 1

    module = types.ModuleType(request.param)
    module.util = types.SimpleNamespace(generate_id=lambda: "abc123")
    module.init = lambda **asked: told["init"].append(asked) or Run()
    monkeypatch.setitem(sys.modules, request.param, module)
    monkeypatch.setattr(metric_logger, "find_spec", lambda name: object())
    return request.param, told


def test_figures_reach_both(package, tmp_path):
    name, told = package
    meter = MetricLogger(tmp_path, 4, 0, 2, trackers=("tensorboard", name))
    for step in range(2):
        meter.step(step, {"loss": 1.5 - step, "odd": float("nan")}, 8, Counter())
    meter.close()
    ((step, figures),) = told["log"]
    assert step == 1
    assert figures["loss"] == 0.5
    assert figures["samples_per_second_per_process"] == figures["samples_per_second"]
    assert "odd" not in figures  # not finite
    assert told["finished"] == 1
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_resumed_run_is_the_same_run_there(package, tmp_path):
    name, told = package
    for first in (0, 2):
        (tmp_path / "cloc").mkdir(exist_ok=True)
        MetricLogger(tmp_path / "cloc", 4, first, 2, trackers=(name,)).close()
    (tmp_path / "other" / "cloc").mkdir(parents=True)
    MetricLogger(tmp_path / "other" / "cloc", 4, 0, 2, trackers=(name,)).close()
    one, again, other = told["init"]
    assert one["resume"] == again["resume"] == "allow"
    known_by = "id" if name == "wandb" else "name"
    assert one[known_by] == again[known_by]
    assert one["name"].startswith("cloc")
    if name == "trackio":  # which knows a run by its name alone
        assert other["name"] != one["name"]
        assert one["project"] == "mllm-vision-kit"
    assert not (tmp_path / "cloc" / "tensorboard").exists()


def test_speed_is_told_for_each_process_and_memory_of_the_device(tmp_path, monkeypatch):
    monkeypatch.setattr(comm, "world_size", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    meter = MetricLogger(tmp_path, 1, 0, 1, trackers=())
    meter.step(0, {"loss": 1.0}, 8, Counter())
    meter.close()
    entry = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert entry["samples_per_second_per_process"] == pytest.approx(entry["samples_per_second"] / 4)
    assert entry["device_peak_mib"] == 3


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_names_its_install_command(name, monkeypatch):
    monkeypatch.setattr(metric_logger, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"run\.trackers: {name} is not installed; pip install {name}"):
        metric_logger.check_trackers(["tensorboard", name])
    metric_logger.check_trackers(["tensorboard"])
