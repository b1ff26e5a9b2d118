"""The folder of a run. Never overwritten; found again for `--resume`, by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from cloc import comm
from cloc.config import dump_config, load_config
from cloc.disk import locked, write_text
from cloc.export import CARD, find_next_free
from cloc.train.checkpoint import newest, read_state

CONFIG = "config.yaml"
FREE = frozenset(
    {
        "run.name", "run.device", "run.workers", "run.trackers", "train.deepspeed", "train.log_every",
        "train.checkpoint_every", "train.keep_checkpoints",
    }
)  # fmt: skip
"""Fields that do not decide the weights: a named run goes on with others."""
MOST_SHOWN = 5
"""Differing fields that a refusal names."""
Chosen = TypeVar("Chosen")


@dataclass(frozen=True)
class RunKind:
    """What differs between kinds of runs.

    Attributes:
        load: the config in a file.
        called: what the result is called in a sentence.
        result: its folder in the run's.
        card: the file in there that is written last.
        length: fields that say how long it is: a named run goes on with another length.
    """

    load: Callable[[str], BaseModel]
    called: str
    result: str
    card: str
    length: frozenset[str] = frozenset({"train.steps", "train.samples", "train.epochs"})

    def is_finished(self, folder: Path) -> bool:
        """Whether the run's result is complete."""
        return (folder / self.result / self.card).is_file()


PRETRAINING = RunKind(load_config, "export", "export", CARD)


def config_file(folder: Path) -> Path:
    """The resolved config of a run.

    Raises:
        ValueError: the folder is no run.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(
            f"--resume {folder}: no run ({CONFIG} is missing); expected auto or a folder such as runs/NAME"
        )
    return path


def config_of_call(config: str | None, resume: str | None, usual: str) -> str:
    """The config file that a command line means: the named one, else that of the run to resume, else the usual one."""
    if config is not None:
        return config
    return usual if resume in (None, "auto") else str(config_file(Path(resume)))


def read_config(folder: Path, kind: RunKind = PRETRAINING) -> Any:
    """The resolved config of a run.

    Raises:
        ValueError: the folder is no run.
    """
    return kind.load(str(config_file(folder)))


def new_run(runs: Path, config: Any) -> Path:
    """Make runs/NAME, or the next free NAME-N, with the resolved config inside."""
    while True:
        folder = find_next_free(runs / config.run.name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.exists():  # a file where a folder of runs should be
                raise
            continue  # another run took the name in between
        (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")
        return folder


def find_run(runs: Path, config: Any, resume: str, kind: RunKind = PRETRAINING) -> tuple[Path, Path | None]:
    """The run to continue and its newest whole checkpoint (None: from the start).

    Args:
        runs: folder of runs.
        config: of this call. `auto` looks for an equal one (but for `train.deepspeed`); a named run may differ in
            `FREE` fields and in its length, which is never shorter than what is done.
        resume: `auto` for the newest unfinished run, else a run's folder.
        kind: of the runs.

    Raises:
        ValueError: there is no such run, its config differs (the fields are named), it is finished, or no checkpoint of
            it is whole.
    """
    return _going_on(_find_folder(runs, config, resume, kind), config, kind)


def _find_folder(runs: Path, config: Any, resume: str, kind: RunKind) -> Path:
    if resume != "auto":
        return config_file(Path(resume)).parent
    unfinished = [p.parent for p in runs.glob(f"*/{CONFIG}") if not kind.is_finished(p.parent)]
    equal = [folder for folder in unfinished if _has_config(folder, config, kind)]
    if not equal:
        raise ValueError(
            f"--resume auto: no unfinished run of this config under {runs}/; start one without --resume, or name "
            "its folder"
        )
    return max(equal, key=lambda f: (f / CONFIG).stat().st_mtime)


def _going_on(folder: Path, config: Any, kind: RunKind) -> tuple[Path, Path | None]:
    """A run and its newest whole checkpoint, where it may go on with this config."""
    differing = differences(read_config(folder, kind), config)
    wrong = {name: values for name, values in differing.items() if name not in FREE | kind.length}
    if wrong:
        lines = [f"{name} (there {_short(there)}, asked {_short(asked)})" for name, (there, asked) in wrong.items()]
        more = f" and {len(lines) - MOST_SHOWN} more" if len(lines) > MOST_SHOWN else ""
        raise ValueError(
            f"--resume {folder}: its config differs in {', '.join(lines[:MOST_SHOWN])}{more}; leave --config and these "
            "fields out to go on with its own, or start a new run"
        )
    longer = bool(kind.length & set(differing))
    if kind.is_finished(folder) and not longer:
        raise ValueError(
            f"--resume {folder}: the run is finished; its {kind.called} is {folder / kind.result}. "
            "To go on, ask for more, such as train.steps=N"
        )
    checkpoint = newest(folder / "checkpoints")
    done = 0 if checkpoint is None else read_state(checkpoint)["step"]
    steps = getattr(config, "steps", None)
    if longer and isinstance(steps, int) and (steps < done or (steps == done and kind.is_finished(folder))):
        raise ValueError(f"--resume {folder}: {done:,} steps are done, {steps:,} asked; ask for more, as train.steps=N")
    return folder, checkpoint


def differences(there: BaseModel, asked: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Dotted names of the fields in which two configs differ, with both values; `None` stands for what is not there."""
    one, two = (_flat(config.model_dump(mode="json")) for config in (there, asked))
    return {k: (one.get(k), two.get(k)) for k in dict.fromkeys((*one, *two)) if one.get(k) != two.get(k)}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = dict[str, Any]()
    for key, below in items:
        found |= _flat(below, f"{name}.{key}" if name else str(key))
    return found or {name: value}


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _has_config(folder: Path, config: BaseModel, kind: RunKind) -> bool:
    try:
        return not set(differences(read_config(folder, kind), config)) - {"train.deepspeed"}
    except ValueError:
        return False  # of another kind or version of the kit, or cut short: not a run of this config


def open_run(
    runs: Path, config: Any, resume: str | None, kind: RunKind = PRETRAINING, held: ExitStack | None = None
) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint to continue from; the main rank decides for all.

    Args:
        runs: folder of runs.
        config: of this call; a run that is to be longer than before gets it as its own.
        resume: None for a new run, else see `find_run`.
        kind: of the runs.
        held: keeps the run's lock until it is closed; a killed process keeps none. None: the run is not locked.

    Raises:
        ValueError: on every rank, where there is nothing to resume, another process trains in the folder, or no folder
            can be made.
    """

    def choose() -> tuple[Path, Path | None]:
        folder = new_run(runs, config) if resume is None else _find_folder(runs, config, resume, kind)
        if held is not None:
            held.enter_context(locked(folder, f"{folder}: another process trains in it; wait for it, or end it"))
        if resume is None:
            return folder, None
        found = _going_on(folder, config, kind)
        _lengthen(folder, config, kind)
        return found

    return settled(runs, choose)


def _lengthen(folder: Path, config: Any, kind: RunKind) -> None:
    """A run of another length gets the config of this call; its old one and its result stay beside, by their length."""
    there = read_config(folder, kind)
    changed = {name: values for name, values in differences(there, config).items() if name in kind.length}
    if not changed:
        return
    before = "-".join(f"{name.rpartition('.')[2]}-{old}" for name, (old, _) in sorted(changed.items()) if old)
    if kind.is_finished(folder):
        kept = find_next_free(folder / f"{kind.result}-{before}")
        os.replace(folder / kind.result, kept)
        print(f"the {kind.called} of the shorter run is now {kept}", flush=True)
    (folder / f"config-{before}.yaml").write_text(dump_config(there), encoding="utf-8")
    fields = there.model_dump(mode="json")
    asked = config.model_dump(mode="json")
    for name in kind.length:
        group, _, field = name.partition(".")
        if field in asked.get(group, {}):
            fields[group][field] = asked[group][field]
    write_text(folder / CONFIG, dump_config(type(there).model_validate(fields)))


def settled(runs: Path, choose: Callable[[], Chosen]) -> Chosen:
    """What the main rank chooses below `runs`, on every rank.

    Raises:
        ValueError: on every rank, where choosing raised it, or no folder can be made or read.
    """

    def chosen() -> Chosen:
        try:
            return choose()
        except OSError as error:
            raise ValueError(
                f"--runs {runs}: the folder of the run cannot be made or read ({error}); give another folder"
            ) from error

    return comm.on_main(chosen)
