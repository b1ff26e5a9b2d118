"""Killed at any step and started again, a run ends with the same weights, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 30


@pytest.fixture
def launch(spine_raw, tmp_path):
    """Starts the training command in a process of its own."""
    changes = {"train__steps": STEPS, "train__checkpoint_every": 7, "run__workers": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(spine_raw(**changes)))
    command = [sys.executable, str(REPOSITORY / "cloc/pretrain.py"), "--config", str(tmp_path / "config.yaml")]

    def start(runs, *more):
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = (tmp_path / "log.txt").open("a")
        call = [*command, "--runs", str(runs), *more]
        return subprocess.Popen(call, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)

    return start


def lines(runs):
    file = runs / "tiny" / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.multiprocess
def test_killed_and_resumed_ends_with_the_same_weights(launch, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    straight = launch(whole)
    victim, when = launch(killed), random.randrange(8, STEPS - 2)
    for _ in range(6000):
        if len(lines(killed)) >= when or victim.poll() is not None:
            break
        time.sleep(0.005)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (killed / "tiny" / "export").exists(), f"the run ended before it was killed at step {when}"
    assert launch(killed, "--resume", "auto").wait(120) == 0, (tmp_path / "log.txt").read_text()[-2000:]
    assert straight.wait(120) == 0

    cards = [json.loads((runs / "tiny" / "export" / "export.json").read_text()) for runs in (whole, killed)]
    assert cards[0]["model_sha256"] == cards[1]["model_sha256"]
    one, two = ([json.loads(line) for line in lines(runs)] for runs in (whole, killed))
    assert [entry["step"] for entry in two] == list(range(STEPS))
    figures = ("loss", "image_text", "region_text", "grounding", "gradient_norm")
    assert [[e[f] for f in figures] for e in one] == [[e[f] for f in figures] for e in two]
    assert [path.name for path in killed.iterdir()] == ["tiny"]
