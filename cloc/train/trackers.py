"""Where figures go beside metrics.jsonl: TensorBoard, and W&B or trackio where they are installed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

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
