"""`ablation.json`: the plan and every run, finished, failed or not yet done; written whole after each one."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.ablations.plan import Metric, Plan
from benchmarks.ablations.units import Unit
from benchmarks.rows import Row
from cloc.files import read_object

RECORD = "ablation.json"
SCHEMA = 1
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Done:
    """One run.

    Attributes:
        arm, seed, overrides, config_sha256: as in `Unit`.
        state: `finished` or `failed`.
        reason: of a failure.
        metrics: value by the plan's name; None where the scoring gave a row without one.
        steps: how many steps had each loss term; where kinds of data alternate, these are the steps of each kind.
        train_seconds, score_seconds: wall clock of the processes, over all starts that this record knows of.
        starts: how often training was started or resumed.
        commit: of the kit at the last start.
        export_sha256: of the exported weights.
    """

    arm: str
    seed: int
    config_sha256: str
    state: str
    reason: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    train_seconds: float = 0.0
    score_seconds: float = 0.0
    starts: int = 0
    commit: str = "unknown"
    export_sha256: str | None = None
    overrides: tuple[str, ...] = ()


class Record:
    """All runs of a plan in one folder.

    Args:
        folder: where `ablation.json` lies.
        plan: what is run; an older record must be of an equal one.
        scale: of the plan.

    Raises:
        ValueError: the folder holds the record of another plan or scale.
    """

    def __init__(self, folder: Path, plan: Plan, scale: float) -> None:
        self.path, self.plan, self.scale = folder / RECORD, plan, scale
        self.done: dict[tuple[str, int], Done] = {}
        self._lock = threading.Lock()
        if not self.path.is_file():
            return
        content = read_object(self.path, "the record of a plan's runs")
        if content.get("schema") != SCHEMA or content.get("plan_sha256") != plan.sha256:
            raise ValueError(
                f"{self.path}: holds the runs of another plan, another scale, or of this plan before it was changed; "
                "give another --out"
            )
        for entry in content["runs"]:
            done = Done(**{**entry, "overrides": tuple(entry["overrides"])})
            self.done[done.arm, done.seed] = done

    def finished(self, unit: Unit) -> Done | None:
        """The finished run of a unit, None where it has yet to run.

        Raises:
            ValueError: it was run with another config.
        """
        done = self.done.get((unit.arm, unit.seed))
        if done is None or done.state != FINISHED:
            return None
        if done.config_sha256 != unit.config_sha256:
            raise ValueError(
                f"{self.path}: {unit.name} was trained with another config ({done.config_sha256[:12]}, now "
                f"{unit.config_sha256[:12]}): the base config or the kit's defaults have changed; give another --out"
            )
        return done

    def add(self, done: Done) -> None:
        """Keep a run, and write the file; several runs may end at once."""
        with self._lock:
            self._add(done)

    def _add(self, done: Done) -> None:
        self.done[done.arm, done.seed] = done
        content = {
            "schema": SCHEMA,
            "plan": self.plan.name,
            "plan_sha256": self.plan.sha256,
            "scale": self.scale,
            "question": self.plan.question,
            "budget": self.plan.budget.model_dump(exclude_none=True),
            "stopping": self.plan.stopping,
            "rule": self.plan.rule,
            "seeds": self.plan.seeds,
            "runs": [asdict(one) for one in self.done.values()],
        }
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """Value by seed of the finished runs."""
        return {
            seed: value
            for (name, seed), done in sorted(self.done.items())
            if name == arm and done.state == FINISHED and (value := done.metrics.get(metric)) is not None
        }


def pick(rows: Sequence[Row], metrics: dict[str, Metric]) -> dict[str, float | None]:
    """The plan's figures from the rows of a scoring.

    Raises:
        ValueError: a figure has no row, or several; what is there is named.
    """
    found = {}
    for name, metric in metrics.items():
        asked = metric.model_dump(exclude_none=True)
        fits = [row for row in rows if all(getattr(row, key) == value for key, value in asked.items())]
        if len(fits) != 1:
            there = sorted({f"{r.split} {r.protocol} {r.metric} {r.predictor}" for r in rows if r.task == metric.task})
            raise ValueError(
                f"metric {name}: expected one row of results.json with {asked}, found {len(fits)}; rows of "
                f"{metric.task}: {'; '.join(there) or 'none'}"
            )
        found[name] = fits[0].value
    return found
