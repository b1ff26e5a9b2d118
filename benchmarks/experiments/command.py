"""The command line: a plan in, runs and a table out; what is finished is skipped, what was killed goes on."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from benchmarks.experiments.plan import PLANS, Plan, read_plan, scale_plan
from benchmarks.experiments.record import FAILED, RECORD, Record
from benchmarks.experiments.running import METRICS, Launcher, Runner, Stopped, count_lines
from benchmarks.experiments.table import write_markdown
from benchmarks.experiments.units import Unit, find_base_lengths, make_units
from cloc.command import printable
from cloc.data_root import find_near

TABLE = "ablation.md"


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    known = ", ".join(sorted(file.stem for file in PLANS.glob("*.yaml")))
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments",
        description="Run an ablation plan: every arm with every seed is trained by cloc/pretrain.py and scored by "
        "benchmarks/run.py. Call it again after a kill: finished runs are skipped, a half-done one goes on from its "
        "checkpoint. Writes ablation.json (every run) and ablation.md (the table and the verdicts).",
        epilog=f"plans that come with the kit: {known}. exit code 1: a run failed; 2: the plan or the call is wrong.",
    )
    made.add_argument("plan", metavar="PLAN", help="a YAML file, or the name of a plan that comes with the kit")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder of the ablation (default: runs/ablations-NAME)")
    made.add_argument("--only", action="append", metavar="ARM", help="this arm and what it starts from; repeatable")
    made.add_argument("--seed", action="append", type=int, metavar="N", help="this seed of the plan; repeatable")
    made.add_argument(
        "--take", type=Path, metavar="FILE", help="take over runs of an earlier record, such as a finding"
    )
    made.add_argument("--again", action="append", metavar="ARM", help="with --take: none of this arm; repeatable")
    made.add_argument("--list", action="store_true", help="print the runs, their steps and state; run nothing")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    made.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="X",
        help="budget, world and step counts times X, to see that a plan runs through (default: 1)",
    )
    return made


def main(arguments: Sequence[str] | None = None, launcher: Launcher | None = None) -> int:
    """Run the command; 0 finished, 1 a run failed, 2 a mistake in what was asked, 143 stopped."""
    given = make_parser().parse_args(arguments)
    try:
        if given.jobs < 1:
            raise ValueError(f"--jobs: expected a whole number of at least 1, got {given.jobs}")
        return run_plan(given, launcher)
    except ValueError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    except Stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 143


def run_plan(given: argparse.Namespace, launcher: Launcher | None) -> int:
    """Check everything, then run what is not finished."""
    whole = read_plan(given.plan)
    plan = whole if given.scale == 1 else scale_plan(whole, given.scale, find_base_lengths(whole))
    suffix = "" if given.scale == 1 else f"-x{given.scale:g}"
    folder = given.out or find_near("runs") / f"ablations-{plan.name}{suffix}"
    runs = folder / "runs"
    every = make_units(plan, plan.with_starts(list(plan.arms)), runs)
    record = Record(folder, plan, given.scale)
    arms = plan.with_starts(given.only or list(plan.arms))
    if given.take is not None:
        plan.with_starts(given.again or [])  # which knows the arms
        record.take(given.take, every, given.again or [])
    units = [unit for unit in every if unit.arm in arms and unit.seed in plan.some_seeds(given.seed)]
    todo = [unit for unit in units if record.finished(unit) is None]
    if given.list:
        print("\n".join(list_runs(units, record, runs)))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, len(os.sched_getaffinity(0)) // given.jobs) if given.jobs > 1 else None
    runner = Runner(plan, folder, record, launcher or Launcher(threads))
    with stop_on_signals(runner.launcher):
        if todo:
            print(f"{plan.name}: {len(todo)} of {len(units)} runs to do; rendering {plan.world.folder} if need be")
            runner.render()
            run_all(runner, plan, todo, given.jobs)
    return write_table(folder, record, every, units)


def write_table(folder: Path, record: Record, every: Sequence[Unit], units: Sequence[Unit]) -> int:
    """Write and print the table."""
    page = write_markdown(record, every)
    (folder / TABLE).write_text(page, encoding="utf-8")
    print(f"{page}\nruns: {folder / RECORD}\ntable: {folder / TABLE}")
    states = [record.done[unit.arm, unit.seed].state for unit in units if (unit.arm, unit.seed) in record.done]
    return int(FAILED in states)


def run_all(runner: Runner, plan: Plan, todo: Sequence[Unit], jobs: int) -> None:
    """Run units, those of one level at a time, so that starting weights are there; a bar counts training steps."""
    depth = {arm: number for number, level in enumerate(plan.levels()) for arm in level}
    bar = tqdm(total=sum(unit.steps for unit in todo), unit="step", desc=plan.name, smoothing=0.05)
    lock = threading.Lock()

    def run(unit: Unit) -> None:
        counted = count_lines(runner.runs / unit.name / METRICS)
        with lock:
            bar.total -= counted
            bar.set_postfix_str(unit.name)

        def progress(steps: int) -> None:
            nonlocal counted
            with lock:
                if steps > counted:
                    bar.update(steps - counted)
                    counted = steps

        done = runner.run(unit, progress)
        progress(unit.steps)
        if done.state == FAILED:
            bar.write(f"failed: {unit.name}: {done.reason}", file=sys.stderr)

    with bar:
        for _, level in groupby(todo, key=lambda unit: depth[unit.arm]):
            with ThreadPoolExecutor(jobs) as pool, ExitStack() as undone:
                undone.callback(runner.launcher.stop)  # whatever ends this early ends what was started
                list(pool.map(run, level))
                undone.pop_all()


@contextmanager
def stop_on_signals(launcher: Launcher) -> Iterator[None]:
    """SIGTERM and ^C end the processes in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        launcher.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def list_runs(units: Sequence[Unit], record: Record, runs: Path) -> Iterator[str]:
    """One line a run: name, steps, state."""
    for unit in units:
        done, steps = record.done.get((unit.arm, unit.seed)), count_lines(runs / unit.name / METRICS)
        state = done.state if done is not None else f"begun, {steps} steps" if steps else "to do"
        start = f", starts from {unit.start}" if unit.start else ""
        reason = f": {done.reason}" if done is not None and done.reason else ""
        yield f"{unit.name:<32} {unit.steps:>6} steps{start}  {state}{reason}"
