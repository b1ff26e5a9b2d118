"""Figures reach every tracker that was asked for; a missing package is said before a run starts."""

import sys
import types
from collections import Counter

import pytest

from cloc.metering import Meter, trackers


@pytest.fixture
def fake_wandb(monkeypatch):
    """A stand-in that notes what it is told, as if the package were installed."""
    told = {"init": [], "log": [], "finished": 0}

    class Run:
        def log(self, figures, step):
            told["log"].append((step, figures))

        def finish(self):
            told["finished"] += 1

    module = types.ModuleType("wandb")
    module.util = types.SimpleNamespace(generate_id=lambda: "abc123")
    module.init = lambda **asked: told["init"].append(asked) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    return told


def test_figures_reach_both(fake_wandb, tmp_path):
    meter = Meter(tmp_path, 4, 0, 2, trackers=("tensorboard", "wandb"))
    for step in range(2):
        meter.step(step, {"loss": 1.5 - step, "odd": float("nan")}, 8, Counter())
    meter.close()
    ((step, figures),) = fake_wandb["log"]
    assert step == 1
    assert figures["loss"] == 0.5
    assert "samples_per_second" in figures
    assert "odd" not in figures  # not finite
    assert fake_wandb["finished"] == 1
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_resumed_run_is_the_same_run_there(fake_wandb, tmp_path):
    for first in (0, 2):
        Meter(tmp_path, 4, first, 2, trackers=("wandb",)).close()
    assert [asked["id"] for asked in fake_wandb["init"]] == ["abc123", "abc123"]
    assert fake_wandb["init"][1]["resume"] == "allow"
    assert fake_wandb["init"][0]["name"] == tmp_path.name
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_package_names_its_install_command(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"run\.trackers: wandb is not installed; pip install wandb"):
        trackers.check_trackers(["tensorboard", "wandb"])
    trackers.check_trackers(["tensorboard"])
