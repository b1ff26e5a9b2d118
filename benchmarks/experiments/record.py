"""`ablation.json`: the plan and every run, finished, failed or not yet done; written whole after each one."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.experiments.plan import Metric, Plan
from benchmarks.experiments.units import Unit
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
        state: `finished`, `failed`, or `withdrawn`: kept for what it was, but it answers nothing any more.
        reason: of a failure, or why it was withdrawn.
        metrics: value by the plan's name; None where the scoring gave a row without one.
        steps: how many steps had each loss term; where kinds of data alternate, these are the steps of each kind.
        train_seconds, score_seconds: wall clock of the processes, over all starts that this record knows of.
        starts: how often training was started or resumed.
        commit: of the kit at the last start.
        export_sha256: of the exported weights.
        taken_from: arm and plan of an earlier record that the run was made for; None: for this one.
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
    taken_from: str | None = None

    @property
    def setting(self) -> frozenset[str]:
        """What the run was asked, but for its name."""
        return describe_setting(self.overrides)


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
        self.compared: tuple[str, ...] = ()
        self._lock = threading.Lock()
        if not self.path.is_file():
            return
        content = read_object(self.path, "the record of a plan's runs")
        if content.get("schema") != SCHEMA or content.get("plan_sha256") != plan.sha256:
            raise ValueError(
                f"{self.path}: holds the runs of another plan, another scale, or of this plan before it was changed; "
                "give another --out"
            )
        self.compared = tuple(content.get("compared", ()))
        self.done = {(done.arm, done.seed): done for done in map(_done, content["runs"])}

    def finished(self, unit: Unit) -> Done | None:
        """The finished run of a unit, None where it has yet to run.

        Raises:
            ValueError: it was run with another config.
        """
        done = self.done.get((unit.arm, unit.seed))
        if done is None or done.state != FINISHED:
            return None
        if done.taken_from is None and done.config_sha256 != unit.config_sha256:
            raise ValueError(
                f"{self.path}: {unit.name} was trained with another config ({done.config_sha256[:12]}, now "
                f"{unit.config_sha256[:12]}): the base config or the kit's defaults have changed; give another --out"
            )
        return done

    def take(self, file: Path, units: Sequence[Unit], again: Sequence[str]) -> None:
        """Take over finished runs of an earlier record of the plan, each with the commit that it was trained on.

        A run is taken for a unit that was asked the same, whatever its arm was called; defaults that the kit has got
        since then are not asked, so whoever takes says that they changed nothing. What is in this record already stays,
        and where the earlier one has it too, figures and weights are compared and the answer is kept.

        Args:
            file: `ablation.json`, or one of the findings.
            units: of the plan.
            again: arms that are run anew and never taken.

        Raises:
            ValueError: there is no such file, or it is no record.
        """
        content = read_object(file, "the record of an ablation")
        if content.get("schema") != SCHEMA:
            raise ValueError(f"{file}: expected a record of an ablation, with schema {SCHEMA}")
        earlier = {(done.seed, done.setting): done for done in map(_done, content["runs"]) if done.state == FINISHED}
        compared = list(self.compared)
        for unit in units:
            old, mine = earlier.get((unit.seed, describe_setting(unit.overrides))), self.done.get((unit.arm, unit.seed))
            if old is None or unit.arm in again:
                continue
            origin = f"arm {old.arm} of plan {content['plan_sha256'][:12]}"
            if mine is None:
                self.done[unit.arm, unit.seed] = replace(old, arm=unit.arm, taken_from=origin)
            elif mine.taken_from != origin:
                figures = "equal figures" if mine.metrics == old.metrics else "other figures"
                weights = "equal weights" if mine.export_sha256 == old.export_sha256 else "other weights"
                compared.append(f"{unit.name} on commit {mine.commit[:12]}: {figures}, {weights}")
        self.compared = tuple(dict.fromkeys(compared))
        self._write()

    def add(self, done: Done) -> None:
        """Keep a run, and write the file; several runs may end at once."""
        with self._lock:
            self.done[done.arm, done.seed] = done
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
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
            "compared": self.compared,
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


def describe_setting(overrides: Sequence[str]) -> frozenset[str]:
    """Config fields of a run but for its name."""
    return frozenset(one for one in overrides if not one.startswith("run.name="))


def _done(entry: dict[str, Any]) -> Done:
    return Done(**{**entry, "overrides": tuple(entry["overrides"])})


def pick_metrics(rows: Sequence[Row], metrics: dict[str, Metric]) -> dict[str, float | None]:
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
