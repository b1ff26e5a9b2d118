"""What Ray costs: the same labelling job on local processes and on Ray's actors, as many of each, start-up apart.

    python -m benchmarks.speed.labelling_runners --minutes 10

Both runners begin when all their workers have loaded the models, and end when the card is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.speed.labelling_job import RUNNERS, Job, hash_output, write_detector, write_source
from benchmarks.speed.timing import Family, find_ratio

BAR = 1.15
"""Ray's seconds over the plain runner's, at most, on a job of ten minutes or more."""
MINUTES = 10.0
PROBE = 2048
"""Photos of a short job that tells the rate; of 128, beginning and end would be most of it."""
MARGIN = 1.25
"""More photos than that rate asks for: a long job is a tenth faster, and the bar is for no less than its minutes."""
SHARDS_A_WORKER = 30


@dataclass(frozen=True)
class Took:
    """What one job took.

    Attributes:
        startup: seconds until all workers had loaded the models.
        seconds: from then to the card.
        busy: seconds of processor time in between, of all processes.
        output: files and hashes.
    """

    startup: float
    seconds: float
    busy: float
    output: dict[str, str]


def time_job(job: Job) -> Took:
    """Run a job to its end.

    Raises:
        RuntimeError: it failed.
    """
    family, start = Family(), time.time()
    with family.watched():
        process = job.start()
        process.join()
    began, finished = job.began(), job.signs / "finished"
    if process.exitcode or began is None or not finished.is_file():
        raise RuntimeError(f"the job on {job.runner} ended with code {process.exitcode}; its own words are above")
    end = finished.stat().st_mtime
    return Took(began - start, end - began, family.until(end) - family.until(began), hash_output(job.out))


def compare_runners(folder: Path, minutes: float, workers: int, rounds: int) -> dict[str, list[Took]]:
    """Both runners in turn, on a job that takes the plain one about so many minutes.

    Args:
        folder: to work in.
        minutes: of the plain runner.
        workers: processes, and actors.
        rounds: of both; the order changes from one to the next.
    """
    detector = write_detector(folder / "detector")
    probe = write_source(folder / "probe", PROBE, PROBE // (2 * workers))
    rate = PROBE / time_job(_job(folder, probe, detector, RUNNERS[0], workers, "probe")).seconds
    shards = workers * SHARDS_A_WORKER
    photos = shards * max(1, round(MARGIN * rate * 60 * minutes / shards))
    source = write_source(folder / "in", photos, photos // shards)
    print(f"job: {photos:,} photos in {shards} shards, {workers} workers", flush=True)
    found: dict[str, list[Took]] = {runner: [] for runner in RUNNERS}
    for number in range(rounds):
        for runner in RUNNERS if number % 2 == 0 else RUNNERS[::-1]:
            found[runner].append(time_job(_job(folder, source, detector, runner, workers, f"{runner}-{number}")))
            print(describe_work(runner, found[runner][-1]), flush=True)
    return found


def _job(folder: Path, source: Path, detector: Path, runner: str, workers: int, name: str) -> Job:
    return Job(source, detector, folder / f"{name}-out", folder / f"{name}-signs", runner, workers)


def describe_work(runner: str, one: Took) -> str:
    """One job as a line."""
    return f"{runner:10}{one.startup:7.1f} s to start, {one.seconds:8.1f} s of work, {one.busy:8.1f} s of processor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, 1 where Ray costs more than `BAR` or writes other bytes, 2 for a mistake in the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.labelling_runners",
        description="Label the same rendered photos with a random detector on local processes and on Ray, with as many "
        "workers, and compare seconds (from the moment when all models are loaded), processor time and bytes.",
        epilog="exit code 1: Ray's work took more than "
        f"{BAR} times the plain runner's, or its output is another; 2: wrong arguments. Needs ray.",
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the job, about (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=2, help="processes, and Ray's actors (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of both runners (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    asked = parser.parse_args(arguments)
    try:
        for name in ("minutes", "workers", "rounds"):
            if getattr(asked, name) <= 0:
                raise ValueError(f"--{name}: expected more than 0, got {getattr(asked, name)}")
        with tempfile.TemporaryDirectory(prefix="labelling-runners-", dir=asked.folder) as work:
            found = compare_runners(Path(work), asked.minutes, asked.workers, asked.rounds)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(judge_runners(found))
    return int(not _holds(found))


def judge_runners(found: Mapping[str, Sequence[Took]]) -> str:
    """The plain job's length, both ratios, and whether the outputs are equal, as a line."""
    minutes = median(one.seconds for one in found["processes"]) / 60
    same = "the same bytes" if _same(found) else "OTHER BYTES"
    busy = find_ratio([one.busy for one in found["ray"]], [one.busy for one in found["processes"]])
    ratios = f"{_ratio(found):.3f} by the clock (bar {BAR}), {busy:.3f} in processor time"
    return f"a job of {minutes:.1f} minutes; Ray over plain: {ratios}; {same}"


def _ratio(found: Mapping[str, Sequence[Took]]) -> float:
    return find_ratio([one.seconds for one in found["ray"]], [one.seconds for one in found["processes"]])


def _same(found: Mapping[str, Sequence[Took]]) -> bool:
    outputs = [one.output for runs in found.values() for one in runs]
    return all(output == outputs[0] for output in outputs)


def _holds(found: Mapping[str, Sequence[Took]]) -> bool:
    return _same(found) and _ratio(found) <= BAR


if __name__ == "__main__":
    sys.exit(main())
