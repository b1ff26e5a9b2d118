"""`kill -9` at random moments of a labelling job: its output must equal that of an undisturbed one, byte for byte.

    python -m benchmarks.speed.labelling_kills --victim worker --runner ray --kills 10

A worker that is killed is replaced by its runner; a job that is killed is started again by the same call.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from benchmarks.speed.labelling_job import RUNNERS, Job, hash_output, write_detector, write_source

VICTIMS = ("worker", "job")
SHARDS, SHARD = 240, 4
LATEST = 3.0
"""Seconds between the moment when there is something to kill and the kill, at most: several shards."""
LOOK = 0.05


@dataclass(frozen=True)
class Disturbed:
    """What came of a disturbed job.

    Attributes:
        kills: that hit something alive.
        samples: in the undisturbed output.
        different: files that are not the same in both outputs.
    """

    kills: int
    samples: int
    different: tuple[str, ...]


def run_disturbed(
    folder: Path, victim: str, runner: str, kills: int, workers: int = 2, shards: int = SHARDS, seed: int = 0
) -> Disturbed:
    """Label made-up shards twice, once undisturbed, once with kills.

    Args:
        folder: to work in.
        victim: one of `VICTIMS`.
        runner: one of `RUNNERS`.
        kills: at most; fewer where the job was finished before.
        workers: processes, or Ray's actors.
        shards: to label.
        seed: of moments and victims.

    Raises:
        RuntimeError: a job ended with an error of its own.
    """
    source, detector = write_source(folder / "in", shards * SHARD, SHARD), write_detector(folder / "detector")
    plain = Job(source, detector, folder / "plain", folder / "plain-signs", "processes", workers)
    _finished(plain.start())
    job = replace(plain, out=folder / "killed", signs=folder / "killed-signs", runner=runner, waits=True)
    with tqdm(total=kills, desc="kills", unit="kill") as bar:
        done = (_kill_workers if victim == "worker" else _kill_jobs)(job, kills, random.Random(seed), bar)
    one, two = hash_output(plain.out), hash_output(job.out)
    different = tuple(sorted(name for name in {*one, *two} if one.get(name) != two.get(name)))
    return Disturbed(done, shards * SHARD, different)


def _kill_workers(job: Job, kills: int, moments: random.Random, bar: tqdm) -> int:
    """One job; its workers are killed one at a time, each after it has loaded its models."""
    process, done = job.start(), 0
    while done < kills and process.is_alive():
        alive = [pid for pid in job.pids() if _is_alive(pid)]
        if job.began() is None or not alive:
            time.sleep(LOOK)
            continue
        time.sleep(moments.uniform(0, LATEST))
        victim = moments.choice(alive)
        if _is_alive(victim):
            os.kill(victim, signal.SIGKILL)
            (job.signs / str(victim)).rename(job.signs / f"killed-{done}")
            done += 1
            bar.update()
    _finished(process)
    return done


def _kill_jobs(job: Job, kills: int, moments: random.Random, bar: tqdm) -> int:
    """As many jobs, one after another; the last is left to finish."""
    for done in range(kills):
        for sign in job.signs.glob("*"):
            sign.unlink()
        process = job.start()
        while job.began() is None and process.is_alive():
            time.sleep(LOOK)
        process.join(moments.uniform(0, LATEST))
        if not process.is_alive():
            _finished(process)
            return done
        process.kill()
        process.join()
        bar.update()
    _finished(job.start())
    return kills


def _is_alive(pid: int) -> bool:
    """Not a zombie either."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _finished(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the labelling job ended with code {process.exitcode}; its own words are above")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the outputs are equal, 1 when they are not, 2 for a mistake in the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.labelling_kills",
        description="Label rendered photos with a random detector, kill -9 a worker or the job at random moments, and "
        "compare what comes out, byte for byte, with an undisturbed job.",
    )
    parser.add_argument("--victim", choices=VICTIMS, default="worker", help="what is killed (default: %(default)s)")
    parser.add_argument("--runner", choices=RUNNERS, default="ray", help="who runs the workers (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="at most (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="workers at once (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=SHARDS, help=f"of {SHARD} photos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    asked = parser.parse_args(arguments)
    try:
        for name in ("kills", "workers", "shards"):
            if getattr(asked, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(asked, name)}")
        with tempfile.TemporaryDirectory(prefix="labelling-kills-", dir=asked.folder) as work:
            words = (asked.victim, asked.runner, asked.kills, asked.workers, asked.shards, asked.seed)
            found = run_disturbed(Path(work), *words)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    verdict = f"{len(found.different)} files differ: {', '.join(found.different)}" if found.different else "every byte"
    print(f"{found.kills} of {asked.kills} kills of a {asked.victim} ({asked.runner}), {found.samples:,} photos")
    print(f"output equal to an undisturbed job's: {verdict}")
    return int(bool(found.different))


if __name__ == "__main__":
    sys.exit(main())
