"""What a run says about itself. JSON lines for every step, TensorBoard, and a bar on the console."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from cloc import comm
from cloc.files import parse_object

KNOWN = ("tensorboard", "wandb", "trackio")
BESIDE = ("wandb", "trackio")
"""Those that are packages of their own."""


class Tracker(Protocol):
    """Takes figures of a step."""

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Record finite figures by name."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is missing, before anything else is done.

    Raises:
        ValueError: it is not installed.
    """
    for name in BESIDE:
        if name in names and find_spec(name) is None:
            raise ValueError(
                f"run.trackers: {name} is not installed; pip install {name}, or use run.trackers=[tensorboard]"
            )


def open_trackers(names: Sequence[str], folder: Path, first_step: int) -> list[Tracker]:
    """The trackers of a run; they go on where a resumed one stood.

    Args:
        names: of `KNOWN`.
        folder: the run's; its name is the run's name.
        first_step: where this process starts.
    """
    kinds: dict[str, Callable[[Path, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
    return [kinds[name](folder, first_step) for name in dict.fromkeys(names)]


class TensorBoard:
    """Event files in the run's folder; later steps of a killed process are purged."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self._board.close()


class WandB:
    """Weights & Biases. Account, project and whether it is online are its own environment variables (WANDB_MODE)."""

    def __init__(self, folder: Path, first_step: int) -> None:
        check_trackers(["wandb"])
        import wandb

        # One run a folder: a resumed process finds its number here. W&B itself drops steps that it has seen.
        number = folder / "wandb_id"
        if not number.is_file():
            number.write_text(wandb.util.generate_id(), encoding="utf-8")
        self._run = wandb.init(
            name=folder.name, id=number.read_text(encoding="utf-8"), dir=str(folder), resume="allow",
            config={"first_step": first_step},
        )  # fmt: skip

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class Trackio:
    """trackio: a local board (`trackio show`), or a Space. Where it writes are its own environment variables
    (TRACKIO_DIR, TRACKIO_SPACE_ID); TRACKIO_PROJECT names the project. Steps that a killed process had written before
    the checkpoint stand there twice.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        check_trackers(["trackio"])
        import trackio

        # trackio knows a run by its name alone, which other folders may have too.
        name = folder / "trackio_name"
        if not name.is_file():
            name.write_text(f"{folder.name}-{secrets.token_hex(4)}", encoding="utf-8")
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "mllm-vision-kit"), name=name.read_text(encoding="utf-8"),
            resume="allow", embed=False, config={"first_step": first_step},
        )  # fmt: skip

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def resident_mib(pid: int | None = None) -> float:
    """Resident memory of this process and its direct children in MiB (Linux)."""
    pid = pid or os.getpid()
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    children = Path(f"/proc/{pid}/task/{pid}/children")
    pids = [str(pid), *(children.read_text().split() if children.exists() else ())]
    total = 0.0
    for one in pids:
        statm = Path(f"/proc/{one}/statm")
        if statm.exists():
            total += int(statm.read_text().split()[1]) * page
    return total


class MetricLogger:
    """Writes the figures of each step. Only the main rank has one that writes.

    Args:
        folder: the run's folder.
        steps: of the whole run.
        first_step: where this process starts; lines of later steps from a killed process are cut off.
        log_every: steps between lines on the console.
        quiet: True on every rank but the first: nothing is written.
        trackers: where figures go as well, see `cloc.train.metric_logger`.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        first_step: int,
        log_every: int,
        quiet: bool = False,
        trackers: Sequence[str] = ("tensorboard",),
    ) -> None:
        self.quiet, self.log_every, self.skipped = quiet, log_every, Counter[str]()
        self._samples, self._since = 0, time.perf_counter()
        if quiet:
            return
        self.path = folder / "metrics.jsonl"
        self._cut(first_step)
        self._file = self.path.open("a", encoding="utf-8")
        self._trackers = open_trackers(trackers, folder, first_step)
        self._bar = tqdm(total=steps, initial=first_step, unit="step", dynamic_ncols=True, mininterval=1.0)

    def _cut(self, first_step: int) -> None:
        """Keep the lines before `first_step`; a half-written last line goes."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_bytes().splitlines():
            try:
                entry = parse_object(line, self.path.name)
            except ValueError:
                break
            step, skipped = entry.get("step"), entry.get("skipped_so_far", {})
            if type(step) is not int or step >= first_step or not isinstance(skipped, dict):
                break
            kept.append(line)
            self.skipped = Counter({reason: count for reason, count in skipped.items() if type(count) is int})
        self.path.write_bytes(b"".join(line + b"\n" for line in kept))

    def step(self, step: int, figures: Mapping[str, float], samples: int, skipped: Mapping[str, int]) -> None:
        """Record one finished step: its figures, how many samples it took, and what was skipped, by reason."""
        self.skipped.update(skipped)
        self._samples += samples
        if self.quiet:
            return
        entry: dict[str, object] = {"step": step, **figures, "samples": samples}
        if (step + 1) % self.log_every == 0:
            now = time.perf_counter()
            entry["samples_per_second"] = speed = self._samples / (now - self._since)
            entry["samples_per_second_per_process"] = speed / comm.world_size()  # of one device, where there are some
            entry["resident_mib"] = resident_mib()
            if torch.cuda.is_available():
                entry["device_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
            self._samples, self._since = 0, now
            finite = {k: v for k, v in entry.items() if isinstance(v, float) and math.isfinite(v)}
            for tracker in self._trackers:
                tracker.write(finite, step)
            shown = ("loss", "image_text", "region_text", "grounding", "region_text_accuracy", "samples_per_second")
            self._bar.set_postfix_str(" ".join(f"{name}={entry[name]:.3g}" for name in shown if name in entry))
        if self.skipped:
            entry["skipped_so_far"] = dict(self.skipped)
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        self._bar.update()

    def close(self) -> None:
        """Finish the files."""
        if not self.quiet:
            self._bar.close()
            self._file.close()
            for tracker in self._trackers:
                tracker.close()
