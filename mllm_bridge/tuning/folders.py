"""The folder of a tuning run: never overwritten, found again for `--resume`. Its result lies in `host/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloc.checkpoint import newest
from cloc.config import dump_config
from cloc.export import next_free
from cloc.runs import settled
from mllm_bridge.tuning.settings import TuneConfig, load_settings

CONFIG, RESULT, CARD = "config.yaml", "host", "tune.json"


def is_finished(folder: Path) -> bool:
    """Whether the run's result is complete."""
    return (folder / RESULT / CARD).is_file()


def _find(runs: Path, config: TuneConfig, resume: str) -> Path:
    if resume != "auto":
        folder = Path(resume)
        if not (folder / CONFIG).is_file():
            raise ValueError(
                f"--resume {folder}: no run ({CONFIG} is missing); expected auto or a folder such as runs/NAME"
            )
        theirs, ours = _what_counts(load_settings(str(folder / CONFIG))), _what_counts(config)
        if theirs != ours:
            different = ", ".join(name for name in ours if ours[name] != theirs[name])
            raise ValueError(f"--resume {folder}: its config differs in {different}; use its own {CONFIG}")
        if is_finished(folder):
            raise ValueError(f"--resume {folder}: the run is finished; its result is {folder / RESULT}")
        return folder
    found = [path.parent for path in runs.glob(f"*/{CONFIG}") if _equal(path, config) and not is_finished(path.parent)]
    if not found:
        raise ValueError(f"--resume auto: no unfinished run of this config under {runs}/; start one without --resume")
    return max(found, key=lambda folder: (folder / CONFIG).stat().st_mtime)


def _what_counts(config: TuneConfig) -> dict[str, Any]:
    """A config without how it is spread over machines: checkpoints are free of it."""
    return config.model_dump(exclude={"train": {"deepspeed"}})


def _equal(path: Path, config: TuneConfig) -> bool:
    try:
        return _what_counts(load_settings(str(path))) == _what_counts(config)
    except ValueError:
        return False  # a run of another kind, or cut short


def open_run(runs: Path, config: TuneConfig, resume: str | None) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint to continue from (None: from the start); the main rank decides for all.

    Raises:
        ValueError: on every rank, where there is nothing to resume, or no folder can be made.
    """
    found = settled(runs, lambda: _new(runs, config) if resume is None else _find(runs, config, resume))
    return found, None if resume is None else newest(found / "checkpoints")


def _new(runs: Path, config: TuneConfig) -> Path:
    folder = next_free(runs / config.run.name)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")
    return folder
