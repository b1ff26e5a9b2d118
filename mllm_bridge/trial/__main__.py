"""Run the trial: `python -m mllm_bridge.trial`. Started again it goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from transformers.utils.logging import disable_progress_bar

from cloc import command
from cloc.files import read_object
from mllm_bridge.trial.host import list_texts, list_words, make_host
from mllm_bridge.trial.plan import Arm, TrialPlan, load_plan
from mllm_bridge.trial.questions import CONVERSATIONS, KINDS, Asker, read_held_out, score_answers, write_training_file
from mllm_bridge.trial.table import guess_boxes, guess_names, make_table
from mllm_bridge.tune import command as tune


def make_settings(plan: TrialPlan, arm: Arm, seed: int, host: Path, talks: Path) -> dict:
    """The tuning config of one run; between arms only the host, and the Prompter of the third, differ."""
    return {
        "run": {"name": f"{arm}-{seed}", "seed": seed, "device": "cpu", "workers": 1},
        "host": str(host),
        "data": [{"path": str(talks), "images": plan.world}],
        "parts": {"projector": True, "language": "full"},
        "regions": {"export": plan.exports["cloc"] if arm == "cloc_regions" else None},
        "places": {"scale": "bins", "bins": plan.bins},
        "optim": {
            "lr": plan.lr,
            "beta2": 0.98,
            "weight_decay": plan.weight_decay,
            "warmup_ratio": plan.warmup_ratio,
        },
        "train": {
            "steps": plan.steps,
            "batch_size": plan.batch_size,
            "max_tokens": plan.language.context,
            "checkpoint_every": max(1, plan.steps // 4),
            "cache_tower": True,
        },
    }


def run_one(plan: TrialPlan, arm: Arm, seed: int, out: Path) -> dict:
    """Train and score one arm with one seed; what is there already is not done again.

    Raises:
        ValueError: exports or world are not there, or training failed.
        KeyboardInterrupt, SystemExit: training was asked to stop.
    """
    file = out / f"{arm}-{seed}.json"
    if file.is_file():
        return read_object(file, "the result of a run", "remove it")
    world, started = Path(plan.world), time.monotonic()
    words = list_words(
        list_texts(world / CONVERSATIONS) + list_texts(world / "llava" / "conversations_regions_val.json")
    )
    export = Path(plan.exports["clip" if arm == "clip" else "cloc"])
    host = make_host(out / "hosts" / f"{arm}-{seed}", export, plan.language, words, plan.bins, seed)
    config = out / f"{arm}-{seed}.yaml"
    talks = write_training_file(world, plan.kinds, out / "conversations.json")
    config.write_text(yaml.safe_dump(make_settings(plan, arm, seed, host, talks)), encoding="utf-8")
    run = out / "runs" / f"{arm}-{seed}"
    if not (run / "host" / "tune.json").is_file():
        resume = ["--resume", str(run)] if run.is_dir() else []
        status = tune.main(["--config", str(config), "--runs", str(out / "runs"), *resume])
        if status == command.INTERRUPTED:
            raise KeyboardInterrupt
        if status > 128:  # another signal asked it to stop
            raise SystemExit(status)
        if status:
            raise ValueError(f"trial: the run {run} did not finish; look above, then start the trial again")
    asker, row = Asker(run / "host", arm == "cloc_regions"), {"arm": arm, "seed": seed}
    for kind in KINDS:
        found = score_answers(
            asker, kind, read_held_out(world, kind, plan.questions), out / f"{arm}-{seed}-{kind}.jsonl"
        )
        row |= {kind: found.accuracy, f"{kind}_asked": found.asked, f"{kind}_unread": found.unread}
    row["seconds"] = time.monotonic() - started
    row["over_budget"] = row["seconds"] > 60 * plan.minutes
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return row


def measure_guessing(world: Path) -> dict[str, float]:
    """What answers that do not look get on the world's held-out questions, by kind.

    Raises:
        ValueError: there are none.
    """
    return {
        "referring": guess_names(read_held_out(world, "referring")),
        "grounding": guess_boxes(read_held_out(world, "grounding")),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mllm_bridge.trial",
        description="Train a tiny MLLM from nothing on rendered conversations with a CLIP tower, a CLOC tower, and a "
        "CLOC tower with region tokens, and compare them. Start it again to go on where it stopped.",
    )
    parser.add_argument("--plan", default="configs/bridge/trial.yaml", help="what is done (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/trial"), help="folder of the trial (%(default)s)")
    parser.add_argument("--budget", type=float, default=1.0, help="share of steps and questions, to try it out (1)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial; 0 when all runs are in the table, else see `cloc.command`."""
    asked = parse(arguments)
    disable_progress_bar()

    def work() -> None:
        plan = load_plan(asked.plan, asked.budget)
        asked.out.mkdir(parents=True, exist_ok=True)
        fixed = asked.out / "plan.yaml"
        settled = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
        if fixed.is_file() and fixed.read_text(encoding="utf-8") != settled:
            raise ValueError(f"trial: {asked.out} was begun with another plan; pass another --out")
        fixed.write_text(settled, encoding="utf-8")
        rows, guesses = [], measure_guessing(Path(plan.world))
        for seed in plan.seeds:
            for arm in plan.arms:
                rows.append(run_one(plan, arm, seed, asked.out))
                text = make_table(rows, guesses)
                (asked.out / "table.md").write_text(text, encoding="utf-8")
                print(f"{arm}, seed {seed}: done\n{text}", flush=True)
        result = {"schema": 1, "rendered": True, "guessing": guesses, "rows": rows}
        (asked.out / "trial.json").write_text(json.dumps(result, indent=1) + "\n")
        said = f"written: {asked.out}/table.md and trial.json (rendered scenes: they say nothing about photographs)"
        print(command.printable(said))

    return command.run(work, f"runs that are finished stay; {command.GOES_ON}")


if __name__ == "__main__":
    sys.exit(main())
