"""One unit: train it (or go on with it), score its export, and say what came of it."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.experiments.plan import Plan
from benchmarks.experiments.processes import Launcher, last_words
from benchmarks.experiments.record import FAILED, FINISHED, Done, Record, pick
from benchmarks.experiments.units import Unit
from benchmarks.rows import RESULTS, read_rows
from cloc.data_root import REPOSITORY
from cloc.export import CARD, commit, read_card
from cloc.files import read_json_lines

TERMS = ("image_text", "region_text", "grounding", "alignment", "giou", "centerness", "word_region")
"""Loss terms that metrics.jsonl may hold."""
CONFIG, METRICS = "config.yaml", "metrics.jsonl"


class Runner:
    """Runs the units of a plan in one folder.

    Args:
        plan: what is run.
        folder: gets `runs/`, `scores/` and `logs/`.
        record: what is done already.
        launcher: starts the processes.
    """

    def __init__(self, plan: Plan, folder: Path, record: Record, launcher: Launcher) -> None:
        self.plan, self.folder, self.record, self.launcher = plan, folder, record, launcher
        self.runs = folder / "runs"

    def render(self) -> None:
        """Make the world; one that is there is left alone by the renderer.

        Raises:
            ValueError: the renderer refused.
        """
        world, log = self.plan.world, self.folder / "logs" / "world.log"
        command = [sys.executable, "-m", "cloc.scenes", "--preset", world.preset, "--out", world.folder]
        for name, value in world.options.items():
            flag = name.replace("_", "-")
            command += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
        if self.launcher.run(command, log):
            raise ValueError(f"world {world.folder}: {last_words(log)} (whole log: {log})")

    def run(self, unit: Unit, progress: Callable[[int], None] = lambda steps: None) -> Done:
        """Train and score a unit that is not finished.

        Args:
            unit: whose start, if any, was run before.
            progress: told the steps that have been trained so far.

        Returns:
            Its entry, also in the record; a failure has its reason.
        """
        before = self.record.done.get((unit.arm, unit.seed))
        done = Done(unit.arm, unit.seed, unit.config_sha256, FAILED, commit=commit(), overrides=unit.overrides)
        if before is not None and before.config_sha256 == unit.config_sha256:
            kept = {"train_seconds": before.train_seconds, "starts": before.starts}
            done = replace(done, **kept)
        try:
            done = self._train(unit, done, progress)
            if done.reason is None:
                done = self._score(unit, done)
        except ValueError as error:
            done = replace(done, reason=str(error))
        self.record.add(done)
        return done

    def _train(self, unit: Unit, done: Done, progress: Callable[[int], None]) -> Done:
        folder, log = self.runs / unit.name, self.folder / "logs" / f"{unit.name}.log"
        if unit.start is not None and not (self.runs / unit.start / "export" / CARD).is_file():
            raise ValueError(f"it starts from {unit.start}, which has no finished export")
        if not (folder / "export" / CARD).is_file():
            command = [
                sys.executable,
                str(REPOSITORY / "cloc" / "pretrain.py"),
                "--config",
                unit.config,
                *unit.overrides,
            ]
            command += ["--runs", str(self.runs), *(["--resume", "auto"] if begun(folder) else [])]
            start = time.perf_counter()
            status = self.launcher.run(command, log, lambda: progress(lines_of(folder / METRICS)))
            done = replace(done, train_seconds=done.train_seconds + time.perf_counter() - start, starts=done.starts + 1)
            if status:
                return replace(done, reason=f"training ended with {status}: {last_words(log)} (whole log: {log})")
        if digest_of(folder / CONFIG) != unit.config_sha256:
            raise ValueError(f"{folder} holds a run of another config; give another --out, or delete that folder")
        sha256 = read_card(folder / "export").get("model_sha256")
        return replace(done, steps=steps_of(folder / METRICS), export_sha256=sha256)

    def _score(self, unit: Unit, done: Done) -> Done:
        if not unit.score:
            return replace(done, state=FINISHED)
        out, log = self.folder / "scores" / unit.name, self.folder / "logs" / f"{unit.name}-score.log"
        tasks = dict.fromkeys(metric.task for metric in self.plan.metrics.values())
        command = [sys.executable, str(REPOSITORY / "benchmarks" / "run.py"), *tasks, "--out", str(out)]
        command += ["--model", str(self.runs / unit.name), "--data", self.plan.world.folder]
        start = time.perf_counter()
        if status := self.launcher.run(command, log):
            raise ValueError(f"scoring ended with {status}: {last_words(log)} (whole log: {log})")
        metrics = pick(read_rows(out / RESULTS), self.plan.metrics)
        return replace(done, state=FINISHED, metrics=metrics, score_seconds=time.perf_counter() - start)


def begun(folder: Path) -> bool:
    """Whether a run was begun here, to be gone on with; a folder killed before its config was whole is thrown away."""
    if not folder.exists():
        return False
    config = folder / CONFIG
    if config.is_file() and config.read_text(encoding="utf-8").endswith("\n") and (folder / METRICS).is_file():
        return True
    shutil.rmtree(folder)
    return False


def digest_of(config: Path) -> str:
    """Of a run's resolved config, as `Unit.config_sha256`."""
    return hashlib.sha256(config.read_bytes()).hexdigest()


def lines_of(path: Path) -> int:
    """Steps in a metrics file."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def steps_of(path: Path) -> dict[str, int]:
    """How many steps had each loss term."""
    counts = Counter[str]()
    for _, entry in read_json_lines(path):
        counts.update(name for name in TERMS if name in entry)
    return dict(counts)
