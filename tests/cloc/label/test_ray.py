"""The job on Ray: the same bytes as without, also when an actor is killed; a clear word where ray is missing."""

import hashlib
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from cloc.jobs import ShardJob
from cloc.label.__main__ import main
from cloc.label.job import label
from cloc.label.local import Work
from cloc.label.on_ray import connect_ray, import_ray, load_labeller, run_ray
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


class Ray:
    """What is asked of ray to begin and to end."""

    def __init__(self, error=None):
        self.error, self.given, self.over = error, None, 0

    def is_initialized(self):
        return self.given is not None

    def init(self, **given):
        self.given = given
        if self.error is not None:
            raise self.error
        for name in ("session_1", "session_latest"):
            (Path(given["_temp_dir"]) / name).mkdir()

    def shutdown(self):
        self.over += 1


def test_a_ray_of_our_own_leaves_nothing_and_tells_nobody(monkeypatch, tmp_path):
    ray = Ray()
    monkeypatch.setattr("cloc.label.on_ray.import_ray", lambda: ray)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with pytest.raises(KeyError, match="no photo"):
        _work_on(ray, tmp_path)
    assert ray.over == 1
    assert not list(tmp_path.iterdir())


def _work_on(ray, folder):
    with connect_ray("local", 3):
        assert (os.environ["RAY_USAGE_STATS_ENABLED"], os.environ["RAY_worker_niceness"]) == ("0", "0")
        assert ray.given["num_cpus"] == 3
        assert Path(ray.given["_temp_dir"]).parent == folder
        with connect_ray("local", 3):
            pass  # joined before: it stays
        assert ray.over == 0
        raise KeyError("no photo")


def test_an_address_without_a_cluster_is_told(monkeypatch):
    ray = Ray(ConnectionError("nobody answers\nmore words"))
    monkeypatch.setattr("cloc.label.on_ray.import_ray", lambda: ray)
    with (
        pytest.raises(ValueError, match=r"--ray 10\.0\.0\.1:6379: expected `local` or .* \(nobody answers\)$"),
        connect_ray("10.0.0.1:6379", 2),
    ):
        pass
    assert ray.given["address"] == "10.0.0.1:6379"
    assert "_temp_dir" not in ray.given


def test_actors_that_die_while_they_load_end_the_job(rule_labeller, tmp_path):
    job = ShardJob(tmp_path / "out")
    job.folder.mkdir()
    work = Work("unused", job, rule_labeller(SETTINGS))
    for number in range(7):  # two actors died three times each; the other one may be loading
        (job.folder / f"writing-loading-{number}").mkdir()
    assert load_labeller(work, 2).settings == SETTINGS
    assert not list(job.folder.iterdir())  # one came through: counted from the beginning
    for number in range(8):
        (job.folder / f"writing-loading-{number}").mkdir()
    with pytest.raises(ValueError, match=r"6 workers died while they loaded the models .* take fewer --workers"):
        load_labeller(work, 2)


def test_a_model_that_cannot_be_loaded_is_no_death(tmp_path):
    job = ShardJob(tmp_path / "out")
    job.folder.mkdir()
    with pytest.raises(ValueError, match="no such model"):
        load_labeller(Work("unused", job, _refuses), 2)
    assert not list(job.folder.iterdir())


def _refuses(device):
    raise ValueError("no such model")


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
def test_ray_writes_the_same_bytes_though_an_actor_is_killed(pair_shards, rule_labeller, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    make, source = rule_labeller(SETTINGS), pair_shards(12, 4)
    label(source, tmp_path / "plain", SETTINGS, progress=False, make=make)
    for function in (_dies_once, make.func):
        ray.cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    dying = partial(_dies_once, tmp_path / "died", make)
    label(source, tmp_path / "ray", SETTINGS, progress=False, make=dying, runner=partial(run_ray, "local", 2))
    assert (tmp_path / "died").exists()
    assert digest(tmp_path / "ray") == digest(tmp_path / "plain")
