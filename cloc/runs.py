"""The folder of a run. Never overwritten; found again for `--resume`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from cloc import comm
from cloc.checkpoint import newest
from cloc.config import dump_config, load_config
from cloc.export import CARD, next_free

CONFIG = "config.yaml"
Chosen = TypeVar("Chosen")


@dataclass(frozen=True)
class RunKind:
    """What differs between kinds of runs.

    Attributes:
        load: the config in a file.
        called: what the result is called in a sentence.
        result: its folder in the run's.
        card: the file in there that is written last.
    """

    load: Callable[[str], BaseModel]
    called: str
    result: str
    card: str

    def is_finished(self, folder: Path) -> bool:
        """Whether the run's result is complete."""
        return (folder / self.result / self.card).is_file()


PRETRAINING = RunKind(load_config, "export", "export", CARD)


def read_config(folder: Path, kind: RunKind = PRETRAINING) -> Any:
    """The resolved config of a run.

    Raises:
        ValueError: the folder is no run.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(
            f"--resume {folder}: no run ({CONFIG} is missing); expected auto or a folder such as runs/NAME"
        )
    return kind.load(str(path))


def new_run(runs: Path, config: Any) -> Path:
    """Make runs/NAME, or the next free NAME-N, with the resolved config inside."""
    folder = next_free(runs / config.run.name)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")
    return folder


def find_run(runs: Path, config: Any, resume: str, kind: RunKind = PRETRAINING) -> tuple[Path, Path | None]:
    """The run to continue and its newest checkpoint (None: from the start).

    Args:
        runs: folder of runs.
        config: of this call; a run must have an equal one.
        resume: `auto` for the newest unfinished run, else a run's folder.
        kind: of the runs.

    Raises:
        ValueError: there is no such run, its config differs, or it is finished.
    """
    if resume == "auto":
        unfinished = [p.parent for p in runs.glob(f"*/{CONFIG}") if not kind.is_finished(p.parent)]
        equal = [folder for folder in unfinished if _has_config(folder, config, kind)]
        if not equal:
            raise ValueError(
                f"--resume auto: no unfinished run of this config under {runs}/; start one without --resume"
            )
        folder = max(equal, key=lambda f: (f / CONFIG).stat().st_mtime)
    else:
        folder = Path(resume)
        theirs, ours = _what_counts(read_config(folder, kind)), _what_counts(config)
        if theirs != ours:
            different = [name for name in ours if ours[name] != theirs[name]]
            raise ValueError(
                f"--resume {folder}: its config differs in {', '.join(different)}; use its own config.yaml"
            )
        if kind.is_finished(folder):
            raise ValueError(f"--resume {folder}: the run is finished; its {kind.called} is {folder / kind.result}")
    return folder, newest(folder / "checkpoints")


def _what_counts(config: BaseModel) -> dict[str, Any]:
    """A config without how it is spread over machines: checkpoints are free of it."""
    return config.model_dump(exclude={"train": {"deepspeed"}})


def _has_config(folder: Path, config: BaseModel, kind: RunKind) -> bool:
    try:
        return _what_counts(read_config(folder, kind)) == _what_counts(config)
    except ValueError:
        return False  # of another kind or version of the kit, or cut short: not a run of this config


def open_run(runs: Path, config: Any, resume: str | None, kind: RunKind = PRETRAINING) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint to continue from; the main rank decides for all.

    Raises:
        ValueError: on every rank, where there is nothing to resume, or no folder can be made.
    """
    return settled(
        runs, lambda: (new_run(runs, config), None) if resume is None else find_run(runs, config, resume, kind)
    )


def settled(runs: Path, choose: Callable[[], Chosen]) -> Chosen:
    """What the main rank chooses below `runs`, on every rank.

    Raises:
        ValueError: on every rank, where choosing raised it, or no folder can be made or read.
    """
    found: tuple[Chosen | None, str] = None, ""
    if comm.is_main():
        try:
            found = choose(), ""
        except ValueError as error:
            found = None, str(error)
        except OSError as error:
            found = None, f"--runs {runs}: the folder of the run cannot be made or read ({error}); give another folder"
    chosen, refused = cast("tuple[Chosen, str]", comm.from_main(found))
    if refused:
        raise ValueError(refused)
    return chosen
