"""Plan to units: one arm with one seed, its whole config as overrides, checked against the kit's own config rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.experiments.plan import LENGTHS, Budget, Plan
from cloc.config import Config, dump_config, load_config


@dataclass(frozen=True)
class Unit:
    """One run.

    Attributes:
        arm, seed: which.
        config: base config file.
        overrides: `a.b=c` over it, with the run's name and seed.
        config_sha256: of the resolved config.
        steps: optimiser steps in all.
        start: the unit whose export gives the starting weights, by name; None from scratch.
        score: whether it is scored.
    """

    arm: str
    seed: int
    config: str
    overrides: tuple[str, ...]
    config_sha256: str
    steps: int
    start: str | None
    score: bool

    @property
    def name(self) -> str:
        """Name of its run."""
        return name_unit(self.arm, self.seed)


UNKNOWN = 10**8
"""Steps of a run whose length is yet to be counted; so long that every other length in the config fits."""


def name_unit(arm: str, seed: int) -> str:
    """`ARM-sSEED`."""
    return f"{arm}-s{seed}"


def find_base_lengths(plan: Plan) -> dict[str, int]:
    """Step counts of the base config that `--scale` shortens."""
    fields = plan.set | {"train.steps": UNKNOWN, "train.samples": None}
    raw = load_config(plan.config, _overrides(fields, plan)).model_dump()
    starts = {f"data.{row}.from_step": entry["from_step"] for row, entry in enumerate(raw["data"])}
    return {name: raw[name.split(".")[0]][name.split(".")[1]] for name in LENGTHS} | starts


def make_units(plan: Plan, arms: Sequence[str], runs: Path) -> list[Unit]:
    """The units of these arms, arm by arm, each after what it starts from.

    Args:
        plan: the plan, already scaled.
        arms: from `Plan.with_starts`.
        runs: folder of the runs; starting weights lie there.

    Raises:
        ValueError: an arm's config is refused by the kit; the arm is named.
    """
    return [_unit(plan, arm, seed, runs) for arm in arms for seed in plan.seeds]


def _unit(plan: Plan, name: str, seed: int, runs: Path) -> Unit:
    arm = plan.arms[name]
    fields = {**plan.set, **arm.set, "run.name": name_unit(name, seed), "run.seed": seed}
    if arm.start is not None:
        export = str(runs / name_unit(arm.start, seed) / "export")
        fields |= {"model.vision.source": export, "model.text.source": export}
    try:
        length = _length(plan, arm.budget or plan.budget, fields)
        overrides = _overrides(fields | length, plan)
        config = load_config(plan.config, overrides)
    except ValueError as error:
        raise ValueError(f"arm {name}: {error}") from None
    digest = hashlib.sha256(dump_config(config).encode()).hexdigest()
    start = None if arm.start is None else name_unit(arm.start, seed)
    return Unit(name, seed, plan.config, tuple(overrides), digest, config.steps, start, arm.score)


def _length(plan: Plan, budget: Budget, fields: dict[str, Any]) -> dict[str, int | None]:
    """The budget as config fields."""
    if budget.of_kind is None:
        return {"train.samples": budget.samples, "train.steps": budget.steps}
    assert budget.steps is not None
    config = load_config(plan.config, _overrides(fields | {"train.samples": None, "train.steps": UNKNOWN}, plan))
    return {"train.samples": None, "train.steps": count_steps_with(config, budget.of_kind, budget.steps)}


def count_steps_with(config: Config, kind: str, count: int) -> int:
    """Steps of a run in which one kind of data has exactly `count`: up to and with its last one.

    Raises:
        ValueError: the objective does not alternate, the kind is not there, or odds are not in the config.
    """
    from cloc.data.alternation import make_schedule

    odds = dict[str, float]()
    for entry in config.data:
        if entry.weight is None:
            raise ValueError(f"budget.of_kind {kind}: expected data.N.weight for every source, {entry.path} has none")
        odds[entry.kind] = odds.get(entry.kind, 0.0) + entry.weight
    if not config.alternates or odds.get(kind, 0.0) == 0:
        raise ValueError(f"budget.of_kind {kind}: objective {config.objective} trains on {odds}, never a step of it")
    row, length = list(odds).index(kind), count
    while True:
        places = (make_schedule(odds, length, config.run.seed, config.starts) == row).nonzero()[0]
        if len(places) >= count:
            return int(places[count - 1]) + 1
        length *= 2


def _overrides(fields: dict[str, Any], plan: Plan) -> list[str]:
    """Config fields as `a.b=c`; JSON is YAML as well."""
    return [f"{name}={_written(value, plan.world.folder)}" for name, value in fields.items()]


def _written(value: Any, world: str) -> str:
    if isinstance(value, str):
        return value.replace("{world}", world)
    return json.dumps(value).replace("{world}", world)
