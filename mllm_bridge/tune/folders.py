"""The folder of a tuning run: never overwritten, found again for `--resume`. Its result lies in `host/`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from cloc.train import runs as pretraining
from cloc.train.runs import RunKind
from mllm_bridge.tune.settings import TuneConfig, load_settings

RESULT, CARD = "host", "tune.json"
TUNING = RunKind(load_settings, "result", RESULT, CARD)


def open_run(
    runs: Path, config: TuneConfig, resume: str | None, held: ExitStack | None = None
) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint to continue from (None: from the start); see `cloc.train.runs.open_run`."""
    return pretraining.open_run(runs, config, resume, TUNING, held)
