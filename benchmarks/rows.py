"""What a result is: one row a metric, and the file they are kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from benchmarks.metrics.intervals import Resampled
from cloc.disk import write_text
from cloc.files import read_json

SCHEMA = 1
RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one predictor on one split, with everything that is needed to trust or doubt it.

    Attributes:
        task: name of the task.
        dataset: name of the data set; rendered ones begin with `scenes-`.
        data: `real` or `rendered`; None where no data was found.
        split: official split, with the group of examples after a slash where the split is divided.
        protocol: everything that changes the number, in one string.
        metric: name of the figure, for example `top1`; a comparison's ends in `_difference`.
        value: the figure, None where there is none; then `reason` says why.
        num_examples: examples that the figure is a mean over.
        num_skipped: examples of the split that could not be used; `reason` counts them by cause.
        ci95: 95 % interval, None where too few images would carry it.
        chance: what blind guessing reaches.
        constant: what the best answer that never looks at the image reaches.
        model: name of the run or folder; `A minus B` in a comparison.
        predictor: how the model was read.
        model_sha256: of the export's model.safetensors, or of the file that says what was measured.
        commit: of this kit.
        versions: of the kit and the packages that change numbers.
        machine: processor and number of threads.
        seed: of the bootstrap.
        seconds: wall time of the task on this data set with this predictor.
        reason: why there is no value, or what was skipped.
        images_per_second: that the model was asked about, see `CachedPredictor`; None where it is not measured.
        texts_sha256: of all texts that the model was asked with, as they go to its tokenizer: names, templates and
            questions; None where it was asked with none.
        tokenizer_sha256: of the model's tokenizer files; None where it has no folder or no such file.
        no_constant: why `chance` or `constant` is not given beside a value; None where both are.
    """

    task: str
    dataset: str
    data: Literal["real", "rendered"] | None
    split: str
    protocol: str
    metric: str
    value: float | None
    num_examples: int = 0
    num_skipped: int = 0
    ci95: tuple[float, float] | None = None
    chance: float | None = None
    constant: float | None = None
    model: str
    predictor: str
    model_sha256: str | None
    commit: str
    versions: Mapping[str, str]
    machine: str
    seed: int
    seconds: float
    reason: str | None = None
    images_per_second: float | None = None
    texts_sha256: str | None = None
    tokenizer_sha256: str | None = None
    no_constant: str | None = None

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"row {self.task}/{self.metric}: a row without a value needs a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"row {self.task}/{self.metric}: expected a finite value, got {self.value}")

    @property
    def below_constant(self) -> bool:
        """Whether an answer that never looks at the image reaches more."""
        return self.value is not None and self.constant is not None and self.value < self.constant


@dataclass(frozen=True)
class ScoredRow:
    """A row, and the sums behind it that a comparison needs.

    Attributes:
        row: the row.
        tally: None where the row is no mean over examples.
        model_index: of the model in the run.
    """

    row: Row
    tally: Resampled | None
    model_index: int

    @property
    def key(self) -> tuple[str, ...]:
        """What two rows share when they measure the same thing."""
        row = self.row
        return row.task, row.dataset, str(row.data), row.split, row.protocol, row.metric


FIELDS = tuple(field.name for field in fields(Row))
LATER = ("images_per_second", "texts_sha256", "tokenizer_sha256", "no_constant")
"""Fields that the first version did not write."""


def write_rows(rows: Iterable[Row], folder: Path) -> Path:
    """Write `results.json` into a folder, whole or not at all. Returns its path."""
    path = folder / RESULTS
    text = json.dumps({"schema": SCHEMA, "rows": [asdict(row) for row in rows]}, indent=1, allow_nan=False)
    write_text(path, text + "\n")
    return path


def read_rows(path: Path) -> list[Row]:
    """Read a `results.json`.

    Raises:
        ValueError: the file is no result of the benchmarks.
    """
    content = read_json(path, "a results file of benchmarks/run.py")
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("rows"), list):
        raise ValueError(
            f'{path}: expected a results file of benchmarks/run.py ({{"schema": {SCHEMA}, "rows": [...]}})'
        )
    return [_row(entry, path) for entry in content["rows"]]


def _row(entry: object, path: Path) -> Row:
    needed = set(FIELDS) - set(LATER)
    if not isinstance(entry, dict) or not needed <= set(entry):
        missing = sorted(needed - set(entry)) if isinstance(entry, dict) else list(FIELDS)
        raise ValueError(f"{path}: a row lacks {missing}")
    known: dict[str, Any] = {name: entry.get(name) for name in FIELDS}  # fields that later versions add are left alone
    known["ci95"] = tuple(known["ci95"]) if isinstance(known["ci95"], list) else None
    if known["value"] is not None and type(known["value"]) not in (int, float):
        raise ValueError(f"{path}: expected a number or null as value of a row, got {known['value']!r:.80}")
    return Row(**known)
