"""Feeds damaged inputs to readers in a process of its own, under limits of time and memory, and judges what came.

Verdicts: `ok` taken as it is, `refused` with a ValueError or by exit code 2, `counted` left out and counted by reason;
`FATAL` another error, a traceback, a crash, a silent loss, more than `SECONDS` or more than `BYTES`.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

SECONDS = 20.0
BYTES = 1 << 30
LONGEST = 3000
"""Characters that a command says of a mistake: a hostile text is not told back at full length."""
OK, COUNTED, REFUSED, FATAL = "ok", "counted", "refused", "FATAL"


class WrongError(AssertionError):
    """A reader took or lost something in silence, or ended in another way than it may."""


@dataclass(frozen=True)
class Reader:
    """One kind of input.

    Attributes:
        name: of the kind.
        share: of a thousand inputs.
        prepare: makes valid files in a folder, once; gives what `feed` needs.
        feed: damages one input (the random numbers decide how), writes it into a folder of its own and has it read;
            returns `OK` or `COUNTED`, raises ValueError where it is refused.
    """

    name: str
    share: int
    prepare: Callable[[Path], Any]
    feed: Callable[[Any, Random, Path], str]


@dataclass(frozen=True)
class Verdict:
    """What came of one input."""

    reader: str
    number: int
    kind: str
    told: str
    seconds: float
    bytes: int


def call(main: Callable[[list[str]], int | None], *arguments: object) -> str:
    """A command in this process: its output where it ends with 0 (or 1, where it says so).

    Raises:
        ValueError: it ended with exit code 2.
        WrongError: it ended in another way, or printed a traceback.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    told = out.getvalue() + err.getvalue()
    if "Traceback (most recent call last)" in told:
        raise WrongError(f"a traceback: {told[-600:]}")
    if code == 2 and len(err.getvalue().rpartition("\r")[2]) > LONGEST:
        raise WrongError(f"refused with {len(err.getvalue())} characters: {err.getvalue()[:200]!r}")
    if code == 2:
        raise ValueError(err.getvalue().rpartition("\r")[2].strip() or "exit code 2 without a word")
    if code not in (0, 1):
        raise WrongError(f"exit code {code}: {told[-600:]}")
    return told


def peak_since(reset: bool = False) -> int:
    """The most memory (bytes) that this process held since the last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return 0
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def judge(reader: Reader, state: Any, number: int, seed: int, folder: Path) -> Verdict:
    """Make one input, feed it, and say what came; nothing is raised."""
    folder.mkdir(parents=True)
    random = Random(f"{seed}/{reader.name}/{number}")
    peak_since(reset=True)
    before, start = _held(), time.monotonic()
    try:
        kind, told = reader.feed(state, random, folder), ""
    except ValueError as error:
        kind, told = (REFUSED, str(error)) if str(error).strip() else (FATAL, "refused without a word")
    except BaseException as error:  # whatever comes is what is looked for
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind, told = FATAL, f"{type(error).__name__}: {error} ({_short(last.filename)}:{last.lineno})"
    seconds, held = time.monotonic() - start, max(0, peak_since() - before)
    if seconds > SECONDS:
        kind, told = FATAL, f"{seconds:.0f} s; {told}"
    if held > BYTES:
        kind, told = FATAL, f"{held / 1e9:.1f} GB; {told}"
    return Verdict(reader.name, number, kind, told, seconds, held)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-3:])


def _serve(connection: Connection, states: dict[str, tuple[Reader, Any]], seed: int, scratch: Path, keep: bool) -> None:
    """Does what it is asked, (name of the reader, number) after another, until it is sent None."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * BYTES, resource.RLIM_INFINITY))
    os.chdir(scratch)
    while (asked := connection.recv()) is not None:
        (reader, state), number = states[asked[0]], asked[1]
        folder = scratch / f"{reader.name}-{number}".replace(" ", "-")
        connection.send(judge(reader, state, number, seed, folder))
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def warm_up() -> None:
    """Import what the readers import: else each process would, and the limit of memory would count the libraries."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import mllm_bridge.encoder  # noqa: F401


def feed_all(jobs: Sequence[tuple[Reader, int]], seed: int, folder: Path, keep: bool = False) -> Iterator[Verdict]:
    """Feed every (reader, number) and give the verdicts in order; a process that dies or hangs is replaced.

    Args:
        jobs: what is fed; the same number of a reader is the same input.
        seed: another seed gives other inputs.
        folder: to work in.
        keep: leave the inputs there.
    """
    warm_up()
    states = {}
    for reader in dict.fromkeys(reader for reader, _ in jobs):
        world = folder / "worlds" / reader.name.replace(" ", "-")
        world.mkdir(parents=True)
        states[reader.name] = reader, reader.prepare(world)
    scratch = folder / "inputs"
    scratch.mkdir()
    context = multiprocessing.get_context("fork")  # what is imported and made here is there at once
    waiting = list(jobs)[::-1]
    while waiting:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, states, seed, scratch, keep), daemon=True)
        process.start()
        theirs.close()
        try:
            while waiting:
                reader, number = waiting.pop()
                ours.send((reader.name, number))
                if not ours.poll(SECONDS * 1.5):
                    yield Verdict(reader.name, number, FATAL, "hangs", SECONDS * 1.5, 0)
                    break
                yield ours.recv()
            else:
                ours.send(None)
        except (EOFError, ConnectionError):
            process.join(5)
            yield Verdict(reader.name, number, FATAL, f"the process died (exit code {process.exitcode})", 0.0, 0)
        finally:
            process.join(5) if not waiting else process.kill()
            process.join()
            ours.close()
