"""The command line: world, detector, labels, arms, table; what is finished is skipped, what was killed goes on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.experiments import command as ablations
from benchmarks.experiments.closed_loop.loop import LOOP, Loop, read_loop
from benchmarks.experiments.closed_loop.page import write_page
from benchmarks.experiments.closed_loop.pseudo_boxes import measure
from benchmarks.experiments.plan import Plan, scale_plan
from benchmarks.experiments.record import Record
from benchmarks.experiments.running import Launcher, Stopped, find_last_words
from benchmarks.experiments.units import find_base_lengths, name_unit
from cloc.command import printable
from cloc.data_root import find_near
from cloc.files import read_object

QUALITY, TABLE = "pseudo_boxes.json", "closed_loop.md"
STOPPED = 143
"""Exit code of a command that was asked to stop."""


class StepError(Exception):
    """A step failed; its own words were printed."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.closed_loop",
        description="Train a detector on the boxed part of a rendered world, label its image-text part with it "
        "(python -m cloc.label), train CLOC on those labels, on the true ones, and CLIP alone, score all three, and "
        "write one table. Call it again after a kill: it goes on where it was.",
        epilog="exit code 1: a step failed; 2: the file or the call is wrong.",
    )
    made.add_argument("--config", default=LOOP, metavar="FILE", help="what is run (default: %(default)s)")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder of everything (default: runs/closed-loop-NAME)")
    made.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="X",
        help="budgets, world and step counts times X, to see that it runs through (default: 1)",
    )
    return made


def main(arguments: Sequence[str] | None = None, launcher: Launcher | None = None) -> int:
    """Run the command; 0 finished, 1 a step failed, 2 a mistake in what was asked, 143 stopped."""
    given = make_parser().parse_args(arguments)
    try:
        loop = read_loop(given.config)
        suffix = "" if given.scale == 1 else f"-x{given.scale:g}"
        out = given.out or find_near("runs") / f"closed-loop-{loop.name}{suffix}"
        print(Runs(loop, out, given.scale, launcher or Launcher()).all())
        print(f"table: {out / TABLE}")
    except StepError as error:
        print(printable(f"failed: {error}"), file=sys.stderr)
        return 1
    except ValueError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    except Stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    return 0


class Runs:
    """The steps of a loop in one folder.

    Args:
        loop: what is run.
        out: gets `detector/`, `labelled/`, `cloc/`, `clip/`, the quality of the labels and the table.
        scale: of budgets and world.
        launcher: starts the processes.
    """

    def __init__(self, loop: Loop, out: Path, scale: float, launcher: Launcher) -> None:
        self.loop, self.out, self.scale, self.launcher = loop, out, scale, launcher
        self.labelled = out / "labelled"
        self.plans = {
            "detector": loop.detector_plan(),
            "cloc": loop.cloc_plan(self.labelled),
            "clip": loop.clip_plan(),
        }
        for plan in self.plans.values():
            scale_plan(plan, scale, {})  # refuses a scale before anything is done
        self.world = Path(self._scaled(self.plans["detector"]).world.folder)

    def _scaled(self, plan: Plan) -> Plan:
        return plan if self.scale == 1 else scale_plan(plan, self.scale, find_base_lengths(plan))

    def all(self) -> str:
        """Every step that is not finished; the page."""
        self.train("detector")
        self.label()
        shares = self.compare()
        self.train("cloc")
        self.train("clip")
        records = [Record(self.out / name, self._scaled(plan), self.scale) for name, plan in self.plans.items()]
        text = write_page(self.loop, shares, *records)
        (self.out / TABLE).write_text(text, encoding="utf-8")
        return text

    def train(self, name: str) -> None:
        """Train and score the arms of a plan."""
        folder, file = self.out / name, self.out / f"{name}.yaml"
        self.out.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(self.plans[name].model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        status = ablations.main([str(file), "--out", str(folder), "--scale", str(self.scale)], self.launcher)
        if status == STOPPED:
            raise Stopped
        if status:
            raise StepError(f"{name}: see the lines above; logs lie in {folder / 'logs'}")

    def label(self) -> None:
        """Label the image-text part with the detector; the labeller itself goes on after a kill."""
        export = self.out / "detector" / "runs" / name_unit("detector", self.loop.seeds[0]) / "export"
        command = [
            sys.executable,
            "-m",
            "cloc.label",
            "--shards",
            str(self.world / "train"),
            "--out",
            str(self.labelled),
        ]
        command += ["--detector", str(export)]
        for flag, value in self.loop.labels.items():
            command += [f"--{flag.replace('_', '-')}", str(value)]
        log = self.out / "label.log"
        print(f"labelling {self.world / 'train'} (log: {log})")
        with ablations.stop_on_signals(self.launcher):
            if self.launcher.run(command, log):
                raise StepError(f"labelling: {find_last_words(log)} (whole log: {log})")

    def compare(self) -> dict:
        """Precision and recall of the labels; computed once."""
        file = self.out / QUALITY
        if not file.is_file():
            found = measure(self.labelled, self.world).to_json()
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            partial.replace(file)
        return read_object(file, "the quality of labels", "remove it")["shares"]
