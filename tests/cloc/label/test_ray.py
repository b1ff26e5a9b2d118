"""The job on Ray: the same bytes as without, also when an actor is killed; a clear word where ray is missing."""

import hashlib
import os
import signal
import sys
from functools import partial

import pytest

from cloc.label.__main__ import main
from cloc.label.job import label
from cloc.label.on_ray import import_ray, run_ray
from cloc.label.settings import LabelSettings

SETTINGS = LabelSettings("rules", batch=2)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_without_ray_the_message_names_the_package(monkeypatch, pair_shards, tiny_owl, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install 'ray\[data\]'"):
        import_ray()
    command = ["--shards", str(pair_shards(2)), "--out", str(tmp_path / "out"), "--detector", str(tiny_owl)]
    assert main([*command, "--size", "48", "--ray", "local"]) == 2
    assert "error: --ray: expected the package ray, found none" in capsys.readouterr().err


def _dies_once(flag, make, device):
    """A labeller whose process is killed in its second batch, the first time."""
    labeller = make(device)
    plain, calls = labeller.proposer.propose, []

    def propose(images, phrases):
        calls.append(1)
        if len(calls) == 2 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(images, phrases)

    labeller.proposer.propose = propose
    return labeller


@pytest.mark.multiprocess
@pytest.mark.skipif("CLOC_TEST_RAY" not in os.environ, reason="starts Ray, up to a minute: set CLOC_TEST_RAY=1")
def test_ray_writes_the_same_bytes_though_an_actor_is_killed(pair_shards, rule_labeller, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    make, source = rule_labeller(SETTINGS), pair_shards(12, 4)
    label(source, tmp_path / "plain", SETTINGS, progress=False, make=make)
    for function in (_dies_once, make.func):
        ray.cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    dying = partial(_dies_once, tmp_path / "died", make)
    label(source, tmp_path / "ray", SETTINGS, progress=False, make=dying, runner=partial(run_ray, "local", 2))
    assert (tmp_path / "died").exists()
    assert digest(tmp_path / "ray") == digest(tmp_path / "plain")
