"""Plans, their units, the record and the table; processes are played by a stub that writes what they would."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.experiments import command
from benchmarks.experiments.plan import PLANS, read_plan, scale_plan
from benchmarks.experiments.record import Record, pick_metrics
from benchmarks.experiments.running import Launcher, Stopped, find_last_words
from benchmarks.experiments.table import write_markdown
from benchmarks.experiments.units import count_steps_with, make_units
from cloc.config import dump_config, load_config, parse_config
from cloc.data.alternation import make_schedule
from cloc.scenes import WorldSpec

METRIC = {"task": "t", "split": "val", "protocol": "p", "metric": "m"}


@pytest.fixture
def raw(spine_raw, tmp_path, monkeypatch):
    """A plan of three arms as plain data; the base config lies beside it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(spine_raw()))
    return {
        "name": "tiny",
        "question": "Does it matter?",
        "config": "base.yaml",
        "world": {"folder": "world", "options": {"train": 64, "caption_only_in_detection": False}},
        "set": {"data.0.path": "{world}/train", "loss.filter_warmup": 100},
        "budget": {"samples": 48},
        "seeds": [0, 1, 2],
        "stopping": "none is stopped.",
        "rule": "t over seeds.",
        "metrics": {"mean": METRIC},
        "reference": "m4",
        "arms": {
            "more": {"what": "goes on from clip", "start": "clip", "budget": {"steps": 3}},
            "m4": {"what": "four", "set": {"loss.regions_per_image": 4}},
            "clip": {"what": "the start", "set": {"objective": "clip"}, "score": False},
        },
        "claims": [{"claim": "more > m4 on mean", "paper": "1 against 0"}],
    }


@pytest.fixture
def write(raw, tmp_path):
    """Writes the plan, changed, and gives its path."""

    def make(**changes):
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump({**raw, **changes}, sort_keys=False))
        return str(path)

    return make


class Stub(Launcher):
    """Writes the files that rendering, training and scoring leave; `fails` are parts of commands that end with 1."""

    def __init__(self, fails=(), stop_after=None, values=None):
        super().__init__()
        self.fails, self.stop_after, self.values, self.commands = fails, stop_after, values or {}, []

    def run(self, command, log, watch=lambda: None):
        mine = [str(part) for part in command]  # several threads run commands at once
        self.commands.append(mine)
        if self.stop_after is not None and len(self.commands) > self.stop_after:
            raise Stopped
        log.parent.mkdir(parents=True, exist_ok=True)
        if any(part in " ".join(mine) for part in self.fails):
            log.write_text("step 1\nerror: the loss is not finite\n")
            return 1
        if "pretrain.py" in mine[1]:
            self.train(mine)
        elif "run.py" in mine[1]:
            self.score(mine)
        watch()
        return 0

    @staticmethod
    def train(command):
        runs = command.index("--runs")
        config = load_config(command[3], command[4:runs])
        folder = Path(command[runs + 1]) / config.run.name
        (folder / "export").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(dump_config(config))
        lines = [json.dumps({"step": step, "image_text": 1.0}) for step in range(config.steps)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "export" / "export.json").write_text(json.dumps({"schema": 1, "model_sha256": config.run.name}))

    def score(self, command):
        out, name = Path(command[command.index("--out") + 1]), Path(command[command.index("--model") + 1]).name
        out.mkdir(parents=True, exist_ok=True)
        row = {
            **METRIC, "value": self.values.get(name, 0.5), "dataset": "d", "data": "rendered", "num_examples": 1,
            "num_skipped": 0, "ci95": None, "chance": None, "constant": None, "model": name, "predictor": "prompter",
            "model_sha256": None, "commit": "c", "versions": {}, "machine": "m", "seed": 0, "seconds": 1.0,
            "reason": None,
        }  # fmt: skip
        (out / "results.json").write_text(json.dumps({"schema": 1, "rows": [row]}))


def kinds(stub):
    """What the commands were, as `train NAME`, `score NAME` or `world`."""
    told = []
    for one in stub.commands:
        names = [part.removeprefix("run.name=") for part in one if part.startswith("run.name=")]
        if names:
            told.append(f"train {names[0]}")
        else:
            told.append(f"score {one[one.index('--model') + 1].split('/')[-1]}" if "--model" in one else "world")
    return told


VALUES = {f"more-s{s}": 0.9 + s / 100 for s in range(3)} | {f"m4-s{s}": 0.5 + s / 50 for s in range(3)}


def test_seeds_can_be_run_one_by_one(write, capsys):
    stub = Stub()
    assert command.main([write(), "--out", "out", "--seed", "1", "--only", "more"], stub) == 0
    assert kinds(stub)[1:] == ["train clip-s1", "train more-s1", "score more-s1"]
    assert command.main([write(), "--out", "out", "--seed", "7"], stub) == 2
    assert "--seed 7: expected one of the plan's, 0, 1, 2" in capsys.readouterr().err


def test_a_whole_plan_runs_and_is_told(write, tmp_path, capsys):
    stub = Stub(values=VALUES)
    assert command.main([write(), "--out", "out"], stub) == 0
    done = kinds(stub)
    assert done[0] == "world"
    assert stub.commands[0][3:] == [
        "--preset", "quickstart", "--out", "world", "--train", "64", "--no-caption-only-in-detection",
    ]  # fmt: skip
    assert sorted(done[1:]) == sorted(
        [f"train {a}-s{s}" for a in ("more", "m4", "clip") for s in range(3)]
        + [f"score {a}-s{s}" for a in ("more", "m4") for s in range(3)]
    )
    assert done.index("train clip-s2") < done.index("train more-s0")
    assert "model.vision.source=out/runs/clip-s1/export" in stub.commands[done.index("train more-s1")]
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    names = {f"{run['arm']}-s{run['seed']}" for run in content["runs"]}
    assert names == {f"{arm}-s{seed}" for arm in ("more", "m4", "clip") for seed in range(3)}
    one = next(run for run in content["runs"] if (run["arm"], run["seed"]) == ("more", 1))
    assert (one["state"], one["metrics"], one["steps"]) == ("finished", {"mean": 0.91}, {"image_text": 3})
    assert len(one["config_sha256"]) == 64
    told = capsys.readouterr().out
    assert (tmp_path / "out" / "ablation.md").read_text() in told
    assert "| more | goes on from clip | 0.910 | 0.010 | 3 | +0.390 | +0.365 to +0.415 |" in told
    assert "| `more > m4 on mean` | +0.390 | +0.365 to +0.415 | agrees | 1 against 0 |" in told
    assert "| clip |" not in told
    assert "nothing about real photographs" in told
    assert "9 of 9 runs finished" in told


def test_a_stop_is_gone_on_from_and_the_finished_is_not_run_again(write, capsys):
    first, second, third = Stub(stop_after=4), Stub(), Stub()
    assert command.main([write(), "--out", "out"], first) == 143
    assert command.main([write(), "--out", "out"], second) == 0
    assert command.main([write(), "--out", "out"], third) == 0
    before, after = kinds(first)[:4], kinds(second)
    assert third.commands == []
    assert {"score m4-s0", "train m4-s1"} <= set(before)
    assert set(before) & set(after) == {"world"}
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_half_done_run_is_resumed_and_an_empty_one_thrown_away(write, tmp_path):
    plan = read_plan(write())
    unit = next(u for u in make_units(plan, ["m4"], tmp_path / "out" / "runs") if u.seed == 0)
    half, empty = (tmp_path / "out" / "runs" / name for name in ("m4-s0", "m4-s1"))
    for folder in (half, empty):
        folder.mkdir(parents=True)
    (half / "config.yaml").write_text(dump_config(load_config(unit.config, unit.overrides)))
    (half / "metrics.jsonl").write_text('{"step": 0}\n')
    (empty / "config.yaml").write_text("run:\n  na")
    stub = Stub()
    assert command.main([write(), "--out", "out", "--only", "m4"], stub) == 0
    called = dict(zip(kinds(stub), stub.commands, strict=True))
    assert called["train m4-s0"][-2:] == ["--resume", "auto"]
    assert "--resume" not in called["train m4-s1"]
    assert "train clip-s0" not in called


def test_failures_are_kept_with_their_reason_and_tried_again(write, tmp_path, capsys):
    assert command.main([write(), "--out", "out"], Stub(fails=("run.name=clip-s1 ",), values=VALUES)) == 1
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    failed = {f"{r['arm']}-s{r['seed']}": r["reason"] for r in content["runs"] if r["state"] == "failed"}
    assert set(failed) == {"clip-s1", "more-s1"}
    assert "training ended with 1: error: the loss is not finite" in failed["clip-s1"]
    assert failed["more-s1"] == "it starts from clip-s1, which has no finished export"
    assert "| more | goes on from clip | 0.910 | 0.014 | 2 |" in capsys.readouterr().out
    again = Stub(values=VALUES)
    assert command.main([write(), "--out", "out"], again) == 0
    assert kinds(again) == ["world", "train clip-s1", "train more-s1", "score more-s1"]


def test_several_at_a_time_give_the_same(write, tmp_path):
    assert command.main([write(), "--out", "out", "--jobs", "3"], Stub(values=VALUES)) == 0
    runs = json.loads((tmp_path / "out" / "ablation.json").read_text())["runs"]
    assert sum(run["state"] == "finished" for run in runs) == 9


def test_the_list_runs_nothing(write, tmp_path, capsys):
    assert command.main([write(), "--out", "out", "--list", "--only", "more"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == [f"{a}-s{s}" for a in ("clip", "more") for s in range(3)]
    assert "3 steps, starts from clip-s0  to do" in told[3]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": {}}, "budgets: unknown key; the nearest known one is 'budget'"),
        ({"reference": "m5"}, "reference: 'm5' is unknown; the nearest known one is 'm4'"),
        ({"reference": "clip"}, "reference: 'clip' is unknown"),
        (
            {"claims": [{"claim": "more > m4 on meen", "paper": ""}]},
            "'meen' is unknown; the nearest known one is 'mean'",
        ),
        ({"budget": {"samples": 1, "steps": 1}}, "budget: give exactly one of samples and steps"),
        ({"seeds": [1, 1]}, "seeds: expected different ones"),
        ({"arms": {"m4": {"what": "", "start": "m4"}}, "claims": []}, "start from each other in a circle"),
        ({"config": "other.yaml"}, "arm m4: config other.yaml: no such file"),
        ({"set": {"loss.regions": 3}}, r"arm m4: .*loss\.regions: unknown key; the nearest known one is 'loss\."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_in_a_plan_are_refused_before_anything_runs(write, changes, message, capsys, tmp_path):
    assert command.main([write(**changes), "--out", "out"], Stub()) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_mistakes_in_the_call(write, capsys):
    assert command.main(["nothing.yaml"]) == 2
    told = capsys.readouterr().err
    assert "plans that come with the kit: caption_only, " in told
    assert all(file.stem in told for file in PLANS.glob("*.yaml"))
    assert command.main([write(), "--only", "m3"]) == 2
    assert "--only: 'm3' is unknown; the nearest known one is 'm4'" in capsys.readouterr().err
    assert command.main([write(), "--jobs", "0"]) == 2
    assert command.main([write(), "--scale", "2"]) == 2
    assert "--scale: expected a number above 0 and at most 1, got 2" in capsys.readouterr().err


def test_a_folder_of_another_plan_is_refused(write, capsys):
    assert command.main([write(), "--out", "out"], Stub()) == 0
    assert command.main([write(seeds=[0, 1]), "--out", "out"], Stub()) == 2
    assert "holds the runs of another plan" in capsys.readouterr().err


def test_a_base_config_that_changed_is_refused(write, spine_raw, tmp_path, capsys):
    assert command.main([write(), "--out", "out"], Stub()) == 0
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(spine_raw(optim__lr=0.5)))
    assert command.main([write(), "--out", "out"], Stub()) == 2
    assert "was trained with another config" in capsys.readouterr().err


def test_a_smaller_plan(write):
    plan = scale_plan(read_plan(write()), 0.5, {"optim.warmup_steps": 9, "train.checkpoint_every": 3})
    assert plan.world.folder == "world-x0.5"
    usual = WorldSpec()
    assert (plan.world.options["train"], plan.world.options["val"]) == (64, usual.val // 2)
    assert plan.budget.samples == 24
    assert plan.arms["more"].budget.steps == 2
    assert (plan.set["loss.filter_warmup"], plan.set["optim.warmup_steps"]) == (50, 4)


def test_steps_that_hold_a_number_of_detection_steps(spine_raw):
    raw = spine_raw(objective="detclip")
    raw["data"] = [{"path": p, "kind": k, "weight": w} for p, k, w in (("a", "detection", 1), ("b", "pairs", 2))]
    config = parse_config(raw)
    steps = count_steps_with(config, "detection", 20)
    order = make_schedule({"detection": 1, "pairs": 2}, steps, config.run.seed)
    assert (order == 0).sum() == 20
    assert order[-1] == 0
    assert steps > 40
    raw["data"][1]["from_step"] = 15  # boxes first
    later = count_steps_with(parse_config(raw | {"train": {"steps": 99}}), "detection", 20)
    assert 20 < later < steps
    raw["data"][1] |= {"from_step": 0, "weight": 0}
    assert count_steps_with(parse_config(raw), "detection", 20) == 20
    with pytest.raises(ValueError, match=r"objective detclip trains on .*, never a step of it"):
        count_steps_with(parse_config(raw), "pairs", 20)
    del raw["data"][1]["weight"]
    with pytest.raises(ValueError, match=r"expected data\.N\.weight for every source, b has none"):
        count_steps_with(parse_config(raw), "detection", 20)


def test_a_figure_that_is_not_there_is_named(write, tmp_path):
    plan = read_plan(write())
    with pytest.raises(ValueError, match=r"metric mean: expected one row .*found 0; rows of t: none"):
        pick_metrics([], plan.metrics)
    assert Record(tmp_path, plan, 1.0).values("m4", "mean") == {}


@pytest.mark.parametrize("name", sorted(file.stem for file in PLANS.glob("*.yaml")))
def test_the_kits_own_plans_are_whole(name, tmp_path):
    plan = read_plan(name)
    assert len(plan.seeds) == 3
    budgets = [arm.budget or plan.budget for arm in plan.arms.values()]
    assert all((budget.samples or 0) <= 16_000 for budget in budgets)
    units = make_units(plan, plan.with_starts(list(plan.arms)), tmp_path)
    assert len(units) == 3 * len(plan.arms)
    assert len({unit.config_sha256 for unit in units}) == len(units)


def test_a_process_is_watched_stopped_and_its_last_words_are_read(tmp_path):
    log, seen = tmp_path / "logs" / "a.log", []
    launcher = Launcher(threads=3)
    told = "import os, sys; print(os.environ['OMP_NUM_THREADS'], flush=True); sys.exit('error: no such thing')"
    assert launcher.run([sys.executable, "-c", told], log, lambda: seen.append(1)) == 1
    assert seen
    assert log.read_text().startswith("3\n")
    assert find_last_words(log) == "error: no such thing"
    assert find_last_words(tmp_path / "none") == "no output"
    assert not log.with_suffix(".pid").exists()
    with pytest.raises(Stopped):
        launcher.run([sys.executable, "-c", "import time; time.sleep(60)"], log, launcher.stop)


def test_an_orphan_of_a_killed_ablation_is_named(tmp_path):
    with open("/proc/self/cmdline", "rb") as file:
        own = file.read().split(b"\0")[1].decode()
    (tmp_path / "a.pid").write_text(str(os.getpid()))
    with pytest.raises(ValueError, match=rf"process {os.getpid()} of an ablation that was killed still does this"):
        Launcher().run([sys.executable, own], tmp_path / "a.log")


def test_unchanged_runs_are_taken_over_and_the_table_says_which(write, tmp_path, capsys):
    """An arm is renamed and another takes its name; one run is made again, to see that the taken ones stand."""
    assert command.main([write(), "--out", "old"], Stub(values=VALUES)) == 0
    file, arms = tmp_path / "old" / "ablation.json", {
        "clip": {"what": "the start", "set": {"objective": "clip"}, "score": False},
        "four": {"what": "four", "set": {"loss.regions_per_image": 4}},
        "m4": {"what": "three now", "set": {"loss.regions_per_image": 3}},
    }  # fmt: skip
    renamed = {"arms": arms, "claims": [], "reference": "four"}
    again = Stub(values={"four-s0": VALUES["m4-s0"]})
    assert command.main([write(**renamed), "--out", "new", "--only", "four", "--seed", "0"], again) == 0
    rest = Stub()
    call = [write(**renamed), "--out", "new", "--take", str(file), "--again", "clip"]
    assert command.main(call, rest) == 0
    assert [one for one in kinds(rest) if one.startswith("train")] == [
        *(f"train clip-s{s}" for s in range(3)),
        *(f"train m4-s{s}" for s in range(3)),
    ]
    runs = {(r["arm"], r["seed"]): r for r in json.loads((tmp_path / "new/ablation.json").read_text())["runs"]}
    assert [runs["four", seed]["metrics"]["mean"] for seed in range(3)] == [VALUES[f"m4-s{s}"] for s in range(3)]
    plan = json.loads(file.read_text())["plan_sha256"][:12]
    assert [runs["four", seed]["taken_from"] for seed in range(3)] == [None, *[f"arm m4 of plan {plan}"] * 2]
    assert runs["m4", 0]["taken_from"] is None
    page = (tmp_path / "new/ablation.md").read_text()
    assert "Run again to see that the taken ones stand: four-s0 on commit" in page
    assert "equal figures, other weights" in page  # the stub's weights are named after the arm
    assert command.main([write(**renamed), "--out", "new", "--list"], Stub()) == 0
    assert "to do" not in capsys.readouterr().out.splitlines()[-1]


def test_the_table_names_the_commit_of_each_arm(write, tmp_path):
    assert command.main([write(), "--out", "out"], Stub(values=VALUES)) == 0
    plan = read_plan(write())
    record = Record(tmp_path / "out", plan, 1)
    for key in (("m4", 1), ("more", 0), ("more", 1), ("more", 2)):
        record.done[key] = replace(record.done[key], commit="later", taken_from="arm less of plan abc")
    page = write_markdown(record, make_units(plan, list(plan.arms), tmp_path / "out/runs"))
    line = next(one for one in page.splitlines() if one.startswith("Commit "))
    assert "m4 seed 0 and 2" in line
    assert "; later (" in line
    assert "m4 seed 1, more)" in line or "more, m4 seed 1)" in line
    assert line.count("more is arm less of plan abc") == 1


def test_a_file_that_is_no_record_is_not_taken(write, tmp_path, capsys):
    (tmp_path / "x.json").write_text("[]")
    assert command.main([write(), "--out", "out", "--take", "x.json"], Stub()) == 2
    assert "expected the record of an ablation" in capsys.readouterr().err
