"""The measurements of labelling: who is counted, what is compared, when a kill is noticed; with no model and no Ray."""

import math
import os
import random
import select
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from benchmarks.speed import labelling_kills, labelling_runners
from benchmarks.speed.labelling_job import Job, load_together
from benchmarks.speed.labelling_runners import Took, judge_runners
from benchmarks.speed.timing import Family
from cloc.data.shards import ShardSet

# uses 0.2 seconds of processor time, says who it is, and stays until it may go
BURN = """import os, pathlib, sys, time
said, leave = (pathlib.Path(path) for path in sys.argv[1:])
while time.process_time() < 0.2: pass
said.with_suffix(".part").write_text(str(os.getpid()))
said.with_suffix(".part").rename(said)
while not leave.exists(): time.sleep(0.01)
"""
# starts the first, in a session of its own, and is gone
ABANDON = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], start_new_session=True)"


def told(path):
    until = time.monotonic() + 600
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)
    return int(path.read_text())


def test_a_family_counts_grandchildren_that_left_it_and_the_dead(tmp_path):
    """Who is looked at waits for the look: a loaded machine may take its time."""
    leave, ours, stranger = tmp_path / "leave", tmp_path / "ours", tmp_path / "stranger"
    outside = subprocess.Popen([sys.executable, "-c", BURN, stranger, leave])  # before: not ours
    family = Family(every=0.05)
    try:
        with family.watched():
            subprocess.run([sys.executable, "-c", ABANDON, BURN, ours, leave], check=True)
            grandchild, other = told(ours), told(stranger)
            family.look()
            seen = max(used for _, used in family.history)
            end = os.pidfd_open(grandchild)
            leave.touch()
            assert select.select([end], [], [], 600)[0]
            os.close(end)
    finally:
        leave.touch()
        outside.wait()
    assert seen >= 0.18  # two counts, each rounded down to a tick of 0.01
    assert family.until(math.inf) >= seen
    counted = {pid for pid, _ in family._used}
    assert grandchild in counted
    assert other not in counted
    assert family.until(0.0) == 0.0
    assert family.mark not in os.environ.values()


def job(folder, **more):
    given = {"source": folder, "detector": folder, "out": folder / "out", "signs": folder / "signs"}
    return Job(**given, runner="processes", workers=2, **more)


def test_a_job_begins_with_its_last_worker(tmp_path):
    one = job(tmp_path)
    one.signs.mkdir()
    for pid, moment in ((30, 5), (7, 9)):
        (one.signs / str(pid)).touch()
        os.utime(one.signs / str(pid), (moment, moment))
        assert one.began() == (9 if pid == 7 else None)
    assert one.pids() == [30, 7]
    (one.signs / "7").rename(one.signs / "killed-0")
    assert one.pids() == [30]


def test_workers_wait_for_the_others_and_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.speed.labelling_job.PATIENCE", 0.1)
    monkeypatch.setattr("benchmarks.speed.labelling_job.Labeller.load", lambda settings, device: SimpleNamespace())
    assert load_together(None, tmp_path, 1, False, "cpu") == SimpleNamespace()
    with pytest.raises(RuntimeError, match="expected 2 workers within"):
        load_together(None, tmp_path, 2, False, "cpu")


def test_the_job_labels_the_rendered_photos(tmp_path, monkeypatch):
    from benchmarks.speed.labelling_job import write_detector, write_source

    monkeypatch.setattr("benchmarks.speed.labelling_job.DIFFERENT", 2)
    monkeypatch.setattr("benchmarks.speed.labelling_job.WIDTH", 64)
    monkeypatch.setattr("benchmarks.speed.labelling_job.LAYERS", 1)
    source, detector = write_source(tmp_path / "in", 3, 2), write_detector(tmp_path / "detector")
    one = Job(source, detector, tmp_path / "out", tmp_path / "signs", "processes", 1)
    one.run()
    made = ShardSet.open(one.out)
    assert made.counts == (2, 1)
    assert 0 < len(made.read_sample(0, 0).regions) <= 20
    assert (one.signs / "finished").exists()
    assert one.pids() == [os.getpid()]


def runs(plain, ray, output="x"):
    return {"processes": [Took(1, plain, plain, {"a": "x"})], "ray": [Took(9, ray, 2 * ray, {"a": output})]}


@pytest.mark.parametrize(
    ("found", "told", "code"),
    [
        (runs(100, 110), "a job of 1.7 minutes; Ray over plain: 1.100 by the clock (bar 1.15), 2.200 in processor", 0),
        (runs(100, 120), "1.200 by the clock", 1),
        (runs(100, 100, "y"), "OTHER BYTES", 1),
    ],
)
def test_the_verdict_is_the_work_alone_and_the_bytes(found, told, code, monkeypatch, capsys):
    assert told in judge_runners(found)
    monkeypatch.setattr(labelling_runners, "compare_runners", lambda *given: found)
    assert labelling_runners.main([]) == code
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (labelling_runners, ["--minutes", "0"], "error: --minutes: expected more than 0, got 0.0"),
        (labelling_kills, ["--kills", "0"], "error: --kills: expected at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line_and_code_2(command, words, message, capsys):
    assert command.main(words) == 2
    assert message in capsys.readouterr().err


class Sleeper:
    """A job of which each worker sleeps; a killed one is not replaced."""

    def __init__(self, folder):
        self.signs, self.workers = folder, []

    def start(self):
        self.workers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
        for worker in self.workers:
            (self.signs / str(worker.pid)).touch()
        return self

    def is_alive(self):
        return any(worker.poll() is None for worker in self.workers)

    exitcode = 0

    def join(self):
        assert not self.is_alive()

    def pids(self):
        return [int(sign.name) for sign in self.signs.glob("[0-9]*")]

    def began(self):
        return 1.0


def test_workers_are_killed_until_none_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(labelling_kills, "LATEST", 0.01)
    sleeper, bar = Sleeper(tmp_path), SimpleNamespace(update=lambda: None)
    assert labelling_kills._kill_workers(sleeper, 10, random.Random(0), bar) == 2
    assert [worker.returncode for worker in sleeper.workers] == [-9, -9]
    assert sorted(sign.name for sign in tmp_path.iterdir()) == ["killed-0", "killed-1"]


class Started:
    """A job that has begun and runs until it is killed, or `last` until it is finished."""

    exitcode = 0

    def __init__(self, last):
        self.last, self.killed = last, False

    def is_alive(self):
        return not self.last and not self.killed

    def kill(self):
        self.killed = True

    def join(self, timeout=None):
        assert timeout is not None or not self.is_alive()


@pytest.mark.parametrize(("length", "kills"), [(9, 3), (1, 1)])
def test_jobs_are_killed_and_the_last_is_left_to_finish(tmp_path, length, kills):
    """The second job is finished before its kill where it is one kill long."""
    started = []

    def start():
        started.append(Started(len(started) >= min(length, 3)))
        (tmp_path / str(len(started))).touch()
        assert len(list(tmp_path.iterdir())) == 1 or len(started) > 3  # the signs of the killed are gone
        return started[-1]

    stub, bar = SimpleNamespace(signs=tmp_path, start=start, began=lambda: 1.0), SimpleNamespace(update=lambda: None)
    assert labelling_kills._kill_jobs(stub, 3, random.Random(0), bar) == kills
    assert [one.killed for one in started] == [True] * kills + [False]


def test_a_file_that_differs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(labelling_kills, "write_source", lambda folder, photos, shard: folder)
    monkeypatch.setattr(labelling_kills, "write_detector", lambda folder: folder)

    def written(self):
        self.out.mkdir()
        (self.out / "000000.tar").write_text(self.out.name)
        (self.out / "dataset.json").write_text("equal")
        return SimpleNamespace(join=lambda: None, exitcode=0, is_alive=lambda: False)

    monkeypatch.setattr(Job, "start", written)
    found = labelling_kills.run_disturbed(tmp_path, "worker", "processes", 3)
    assert (found.kills, found.different) == (0, ("000000.tar",))
