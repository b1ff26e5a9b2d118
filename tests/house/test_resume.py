"""Killed at any moment and started again, a run ends with the same weights, bit for bit."""

import json
import os
import random
import signal
import sys
import threading

import pytest
import torch
import yaml

from cloc import pretrain
from cloc.train import metric_logger

STEPS = 30
FIGURES = ("loss", "image_text", "region_text", "grounding", "gradient_norm")


@pytest.fixture
def arguments(spine_raw, tmp_path):
    """The command line of a tiny run, with a loading process of its own."""
    changes = {"train__steps": STEPS, "train__checkpoint_every": 7, "run__workers": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(spine_raw(**changes)))
    return lambda runs, *more: ["--config", str(tmp_path / "config.yaml"), "--runs", str(runs), *more]


def lines(runs):
    file = runs / "tiny" / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def killed_at(when, command, runs, log):
    """Start the run in a fork that is killed, workers and all, some moment after `when` steps are logged."""
    victim = torch.multiprocessing.get_context("fork").Process(target=victim_of, args=(when, command, log))
    victim.start()
    victim.join(600)
    if victim.is_alive():
        os.killpg(victim.pid, signal.SIGKILL)
        pytest.fail(f"it hangs: {log.read_text()[-2000:]}")
    assert victim.exitcode == -signal.SIGKILL, log.read_text()[-2000:]
    assert len(lines(runs)) >= when, f"killed after step {when}"


def victim_of(when, command, log):
    """Leads a process group of its own, so that its workers die with it; a watcher outside might come too late."""
    os.setsid()
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    os.environ.update(LOCAL_WORLD_SIZE=str(max(2, len(os.sched_getaffinity(0)))))  # one thread, as the ranks have
    logged = metric_logger.MetricLogger.step

    def step(meter, number, *figures):
        logged(meter, number, *figures)
        if number + 1 == when:
            moment = random.SystemRandom().uniform(0, 0.03)  # somewhere in the next step, or in what follows the last
            threading.Timer(moment, os.killpg, (os.getpid(), signal.SIGKILL)).start()

    metric_logger.MetricLogger.step = step
    pretrain.main(command)


@pytest.mark.multiprocess
def test_killed_and_resumed_ends_with_the_same_weights(arguments, spine_ranks, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed_at(random.SystemRandom().randrange(8, STEPS), arguments(killed), killed, tmp_path / "log.txt")
    for command in (arguments(killed, "--resume", "auto"), arguments(whole)):
        assert spine_ranks(1, lambda rank, command=command: pretrain.main(command)) == [0]

    cards = [json.loads((runs / "tiny" / "export" / "export.json").read_text()) for runs in (whole, killed)]
    assert cards[0]["model_sha256"] == cards[1]["model_sha256"]
    one, two = ([json.loads(line) for line in lines(runs)] for runs in (whole, killed))
    assert [entry["step"] for entry in two] == list(range(STEPS))
    assert [[e[f] for f in FIGURES] for e in one] == [[e[f] for f in FIGURES] for e in two]
    assert [path.name for path in killed.iterdir()] == ["tiny"]
