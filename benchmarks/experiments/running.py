"""One unit: train it (or go on with it), score its export, and record what came of it; the processes that do so.

Each process writes a log of its own, and a stop goes to all of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.experiments.plan import Plan
from benchmarks.experiments.record import FAILED, FINISHED, Done, Record, pick_metrics
from benchmarks.experiments.units import Unit
from benchmarks.rows import RESULTS, read_rows
from cloc.data_root import REPOSITORY
from cloc.export import CARD, find_commit, read_card
from cloc.files import read_json_lines

PATIENCE = 120.0
"""Seconds that a training run gets to save a checkpoint when it is asked to stop."""
TAIL = 4000
_LOOK = 0.5


class Stopped(Exception):  # noqa: N818  it is no error
    """The user asked to stop; every process has ended."""


class Launcher:
    """Starts processes and waits for them.

    Args:
        threads: torch threads of each process; None leaves it to the environment.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads, self.stopping = threads, threading.Event()

    def run(self, command: Sequence[str], log: Path, watch: Callable[[], None] = lambda: None) -> int:
        """Run a command to its end; returns its exit status.

        Args:
            command: program and arguments.
            log: gets its output, after that of earlier starts.
            watch: called now and then while it runs, and once at the end.

        Raises:
            Stopped: `stop` was called.
            ValueError: the same work is still being done by an orphan of a killed ablation.
        """
        if self.stopping.is_set():
            raise Stopped
        log.parent.mkdir(parents=True, exist_ok=True)
        mark = log.with_suffix(".pid")
        refuse_orphan(mark, command)
        environment = dict(os.environ)
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with log.open("ab") as file:
            # A session of its own: ^C reaches this program alone, which then ends the others in order.
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            mark.write_text(str(process.pid), encoding="utf-8")
            try:
                while process.poll() is None and not self.stopping.is_set():
                    watch()
                    time.sleep(_LOOK)
            finally:
                if process.poll() is None:
                    end_process(process)
                mark.unlink(missing_ok=True)
        watch()
        if self.stopping.is_set():
            raise Stopped
        return process.returncode

    def stop(self) -> None:
        """Ask every process to end; `run` raises `Stopped` in all threads."""
        self.stopping.set()


def refuse_orphan(mark: Path, command: Sequence[str]) -> None:
    """A killed ablation leaves its process running; two must not write to one folder.

    Raises:
        ValueError: the process that `mark` names is alive and does the same work.
    """
    number = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    line = Path("/proc") / number / "cmdline"
    if number and line.is_file() and command[1].encode() in line.read_bytes():
        raise ValueError(
            f"process {number} of an ablation that was killed still does this; end it (kill {number}) first"
        )


def end_process(process: subprocess.Popen) -> None:
    """SIGTERM, on which training saves a checkpoint; after a while SIGKILL for the whole group."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def find_last_words(log: Path) -> str:
    """Why a process ended: its last line that says so, else its last line."""
    if not log.is_file():
        return "no output"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace")[-TAIL:].splitlines()]
    lines = [line for line in lines if line]
    telling = [line for line in lines if line.startswith(("error:", "stopped:")) or "Error" in line]
    return (telling or lines or ["no output"])[-1][:400]


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
            raise ValueError(f"world {world.folder}: {find_last_words(log)} (whole log: {log})")

    def run(self, unit: Unit, progress: Callable[[int], None] = lambda steps: None) -> Done:
        """Train and score a unit that is not finished.

        Args:
            unit: whose start, if any, was run before.
            progress: told the steps that have been trained so far.

        Returns:
            Its entry, also in the record; a failure has its reason.
        """
        before = self.record.done.get((unit.arm, unit.seed))
        done = Done(unit.arm, unit.seed, unit.config_sha256, FAILED, commit=find_commit(), overrides=unit.overrides)
        if before is not None and before.config_sha256 == unit.config_sha256:
            done = replace(done, train_seconds=before.train_seconds, starts=before.starts)
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
            command += ["--runs", str(self.runs), *(["--resume", "auto"] if has_begun(folder) else [])]
            start = time.perf_counter()
            status = self.launcher.run(command, log, lambda: progress(count_lines(folder / METRICS)))
            done = replace(done, train_seconds=done.train_seconds + time.perf_counter() - start, starts=done.starts + 1)
            if status:
                return replace(done, reason=f"training ended with {status}: {find_last_words(log)} (whole log: {log})")
        if hash_config(folder / CONFIG) != unit.config_sha256:
            raise ValueError(f"{folder} holds a run of another config; give another --out, or delete that folder")
        sha256 = read_card(folder / "export").get("model_sha256")
        return replace(done, steps=count_steps(folder / METRICS), export_sha256=sha256)

    def _score(self, unit: Unit, done: Done) -> Done:
        if not unit.score:
            return replace(done, state=FINISHED)
        out, log = self.folder / "scores" / unit.name, self.folder / "logs" / f"{unit.name}-score.log"
        tasks = dict.fromkeys(metric.task for metric in self.plan.metrics.values())
        command = [sys.executable, str(REPOSITORY / "benchmarks" / "run.py"), *tasks, "--out", str(out)]
        command += ["--model", str(self.runs / unit.name), "--data", self.plan.world.folder]
        start = time.perf_counter()
        if status := self.launcher.run(command, log):
            raise ValueError(f"scoring ended with {status}: {find_last_words(log)} (whole log: {log})")
        metrics = pick_metrics(read_rows(out / RESULTS), self.plan.metrics)
        return replace(done, state=FINISHED, metrics=metrics, score_seconds=time.perf_counter() - start)


def has_begun(folder: Path) -> bool:
    """Whether a run was begun here, to be gone on with; a folder killed before its config was whole is thrown away."""
    if not folder.exists():
        return False
    config = folder / CONFIG
    if config.is_file() and config.read_text(encoding="utf-8").endswith("\n") and (folder / METRICS).is_file():
        return True
    shutil.rmtree(folder)
    return False


def hash_config(config: Path) -> str:
    """Of a run's resolved config, as `Unit.config_sha256`."""
    return hashlib.sha256(config.read_bytes()).hexdigest()


def count_lines(path: Path) -> int:
    """Steps in a metrics file."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def count_steps(path: Path) -> dict[str, int]:
    """How many steps had each loss term."""
    counts = Counter[str]()
    for _, entry in read_json_lines(path):
        counts.update(name for name in TERMS if name in entry)
    return dict(counts)
