"""A plan at a hundredth of its size, for real: rendered, trained, killed, gone on with, scored and told."""

import json
import os
import signal
import sys

import pytest
import torch
import yaml

from benchmarks import cli
from benchmarks.experiments import command
from benchmarks.experiments.running import Launcher
from cloc import pretrain
from cloc.scenes import __main__ as scenes
from cloc.train import metric_logger

RETRIEVAL = {"task": "region_retrieval", "split": "val", "metric": "recall@10"}
PLAN = {
    "name": "small",
    "question": "Does RoI-Align do as well?",
    "config": "base.yaml",
    "world": {"folder": "world", "options": {"train": 6400, "val": 100, "refcoco": 100, "size": 48}},
    "set": {"data.0.path": "{world}/train", "train.checkpoint_every": 200},
    "budget": {"samples": 4800},
    "seeds": [3],
    "stopping": "none.",
    "rule": "t over seeds.",
    "metrics": {"t2r": {**RETRIEVAL, "protocol": "one-per-text-and-image/merged/text-to-region"}},
    "reference": "prompter",
    "arms": {
        "prompter": {"what": "as it is", "set": {"loss.grounding": 0}},
        "roialign": {
            "what": "RoI-Align, from the first arm's towers",
            "start": "prompter",
            "set": {"loss.grounding": 0, "model.prompter.kind": "roi_align"},
        },
    },
    "claims": [{"claim": "prompter > roialign on t2r", "paper": "65.9 against 23.0"}],
}


class Forked(Launcher):
    """Runs the real commands in forks of this process, which has their imports behind it.

    Args:
        killed_at: every training run dies as if the machine had, before it logs this step.
    """

    def __init__(self, killed_at=None):
        super().__init__()
        self.killed_at, self.commands = killed_at, []

    def run(self, command, log, watch=lambda: None):
        self.commands.append(command)
        log.parent.mkdir(parents=True, exist_ok=True)
        process = torch.multiprocessing.get_context("fork").Process(target=self.inside, args=(command, log))
        process.start()
        process.join(600)
        if process.exitcode is None:
            process.kill()
            pytest.fail(log.read_text())
        watch()
        return process.exitcode

    def inside(self, command, log):
        """Ends at once: a fork made in a thread of pytest must not run pytest's way out."""
        status = 1
        try:
            status = self.work(command, log)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def work(self, command, log):
        sys.stdout = sys.stderr = log.open("a", buffering=1)
        os.environ.update(LOCAL_WORLD_SIZE=str(max(2, len(os.sched_getaffinity(0)))))  # one thread: forks share no pool
        torch.set_num_threads(1)
        if command[1] == "-m":
            return scenes.main([*command[3:], "--workers", "1"])
        if command[1].endswith("run.py"):
            return cli.main(command[2:])
        logged = metric_logger.MetricLogger.step

        def step(meter, number, *figures):
            if number == self.killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            logged(meter, number, *figures)

        metric_logger.MetricLogger.step = step
        return pretrain.main(command[2:])


@pytest.mark.multiprocess
def test_killed_and_gone_on_with(spine_warm, spine_raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(spine_raw()))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    call = ["plan.yaml", "--scale", "0.01", "--out", "out"]

    assert command.main(call, Forked(killed_at=4)) == 1
    record = json.loads((tmp_path / "out" / "ablation.json").read_text())
    reasons = {run["arm"]: run["reason"] for run in record["runs"]}
    assert "training ended with -9" in reasons["prompter"]
    assert "has no finished export" in reasons["roialign"]
    assert command.main([*call, "--list"]) == 0
    assert "failed: training ended with -9" in capsys.readouterr().out

    second = Forked()
    assert command.main(call, second) == 0, (tmp_path / "out/logs/prompter-s3.log").read_text()[-3000:]
    assert [" ".join(one).count("--resume auto") for one in second.commands if "pretrain.py" in one[1]] == [1, 0]
    log = (tmp_path / "out" / "logs" / "prompter-s3.log").read_text()
    assert "continue" in log or "from step 4" in log
    record = json.loads((tmp_path / "out" / "ablation.json").read_text())
    runs = {run["arm"]: run for run in record["runs"]}
    assert [run["state"] for run in runs.values()] == ["finished", "finished"]
    assert runs["prompter"]["steps"]["region_text"] == runs["roialign"]["steps"]["region_text"] == 6
    assert (runs["prompter"]["starts"], runs["roialign"]["starts"]) == (2, 1)
    assert "grounding" not in runs["roialign"]["steps"]
    assert all(0 <= run["metrics"]["t2r"] <= 1 for run in runs.values())
    log = (tmp_path / "out" / "logs" / "roialign-s3.log").read_text()
    assert "vision tower from out/runs/prompter-s3/export" in log
    told = capsys.readouterr().out
    assert "Scale 0.01: a trial run, its figures mean nothing" in told
    assert "not measured | 65.9 against 23.0" in told
    third = Forked()
    assert command.main(call, third) == 0
    assert third.commands == []
