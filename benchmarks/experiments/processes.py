"""The processes of an ablation: render, train, score. Each writes its own log; a stop goes to all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
                    end(process)
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


def end(process: subprocess.Popen) -> None:
    """SIGTERM, on which training saves a checkpoint; after a while SIGKILL for the whole group."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_words(log: Path) -> str:
    """Why a process ended: its last line that says so, else its last line."""
    if not log.is_file():
        return "no output"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace")[-TAIL:].splitlines()]
    lines = [line for line in lines if line]
    telling = [line for line in lines if line.startswith(("error:", "stopped:")) or "Error" in line]
    return (telling or lines or ["no output"])[-1][:400]
