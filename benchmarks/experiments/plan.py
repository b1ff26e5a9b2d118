"""A plan: which question, which arms, how long, which figures, what is claimed. One strict YAML, checked first.

Values of `set` may hold `{world}`, the folder of the rendered world.

`--scale` makes the same plan smaller, to see that it runs through; its figures mean nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from benchmarks.experiments.claims import Claim, parse_claim
from cloc.config import Strict, read_config
from cloc.data_root import REPOSITORY

PLANS = Path(__file__).parent / "plans"
Value = bool | int | float | str | list[Any] | dict[str, Any] | None


class World(Strict):
    """What `python -m cloc.scenes` renders; the folder is also the data root of the scoring."""

    folder: str = Field(description="where it lies, from the current folder")
    preset: str = "quickstart"
    options: dict[str, bool | int | float | str] = Field({}, description="flags by name, such as {train: 8000}")


class Budget(Strict):
    """How long every arm trains, unless it says otherwise."""

    samples: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    of_kind: Literal["detection", "grounding", "pairs", "regions"] | None = Field(
        None, description="steps counts the steps of this kind of data alone; other kinds come on top, by their weights"
    )

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if (self.samples is None) == (self.steps is None):
            raise ValueError("give exactly one of samples and steps")
        if self.of_kind is not None and self.steps is None:
            raise ValueError("of_kind counts steps; give steps")
        return self


class Arm(Strict):
    """One way to train."""

    what: str = Field(description="in a few words, for the table")
    set: dict[str, Value] = Field({}, description="config fields by dotted name, over those of the plan")
    start: str | None = Field(None, description="an arm whose export, of the same seed, gives the starting weights")
    budget: Budget | None = None
    score: bool = Field(True, description="false: others start from it, it is in no table")


class Metric(Strict):
    """One figure, by the fields of a row of results.json."""

    task: str
    split: str
    protocol: str
    metric: str
    dataset: str | None = None
    predictor: str | None = None


class Claimed(Strict):
    """A claim and what the paper found."""

    claim: str
    paper: str = Field(description="the paper's figures, for comparison; or why there are none")


class Plan(Strict):
    """A whole ablation."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    question: str
    config: str
    world: World
    set: dict[str, Value] = Field({}, description="config fields of all arms")
    budget: Budget
    seeds: tuple[int, ...] = Field(min_length=1)
    stopping: str = Field(description="the stopping rule in words, fixed before the first run")
    rule: str = Field(description="when a claim holds, in words; `benchmarks/experiments/claims.py` computes it")
    metrics: dict[str, Metric] = Field(min_length=1)
    reference: str
    arms: dict[str, Arm] = Field(min_length=1)
    claims: tuple[Claimed, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Plan:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected different ones, got {list(self.seeds)}")
        _known(self.reference, self.scored, "reference")
        for name, arm in self.arms.items():
            if arm.start is not None:
                _known(arm.start, self.arms, f"arms.{name}.start")
        for claim in self.parsed_claims:
            _known(claim.left, self.scored, f"claim {claim.text!r}")
            _known(claim.right, self.scored, f"claim {claim.text!r}")
            _known(claim.metric, self.metrics, f"claim {claim.text!r}")
            _known(claim.other, self.metrics, f"claim {claim.text!r}")
        list(self.levels())
        return self

    @property
    def parsed_claims(self) -> list[Claim]:
        """The claims, taken apart."""
        return [parse_claim(one.claim) for one in self.claims]

    @property
    def scored(self) -> list[str]:
        """Arms that are in the table."""
        return [name for name, arm in self.arms.items() if arm.score]

    def levels(self) -> Iterator[list[str]]:
        """Arms in an order in which each follows what it starts from: first those that start from nothing.

        Raises:
            ValueError: arms start from each other in a circle.
        """
        left, done = dict(self.arms), set[str | None]([None])
        while left:
            ready = [name for name, arm in left.items() if arm.start in done]
            if not ready:
                raise ValueError(f"arms: {', '.join(left)} start from each other in a circle")
            yield ready
            done |= set(ready)
            left = {name: arm for name, arm in left.items() if name not in ready}

    def with_starts(self, names: list[str]) -> list[str]:
        """These arms and what they start from, in the plan's order.

        Raises:
            ValueError: a name is unknown.
        """
        wanted = set[str]()
        for name in names:
            _known(name, self.arms, "--only")
            place: str | None = name
            while place is not None:
                wanted.add(place)
                place = self.arms[place].start
        return [name for name in itertools.chain.from_iterable(self.levels()) if name in wanted]

    def some_seeds(self, asked: list[int] | None) -> tuple[int, ...]:
        """The seeds that were asked for; None: all.

        Raises:
            ValueError: one is not the plan's.
        """
        if unknown := sorted(set(asked or []) - set(self.seeds)):
            raise ValueError(f"--seed {unknown[0]}: expected one of the plan's, {', '.join(map(str, self.seeds))}")
        return self.seeds if asked is None else tuple(asked)

    @property
    def sha256(self) -> str:
        """Of everything in it, so that results say which plan they answer."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def _known(name: str, names: Any, where: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f"; the nearest known one is {near[0]!r}" if near else ""
        raise ValueError(f"{where}: {name!r} is unknown{hint}")


def find_plan(path: str) -> Path:
    """A plan by path, or by name among those that come with the kit.

    Raises:
        ValueError: there is none.
    """
    for candidate in (Path(path), REPOSITORY / path, PLANS / path, PLANS / f"{path}.yaml"):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(file.stem for file in PLANS.glob("*.yaml"))) or "none"
    raise ValueError(f"plan {path}: no such file; plans that come with the kit: {known}")


def read_plan(path: str) -> Plan:
    """Read and check a plan.

    Raises:
        ValueError: no such file, no YAML, an unknown key (the nearest known one is named), or arms that do not fit.
    """
    return read_config(Plan, find_plan(path))


COUNTS = ("train", "detection", "grounding", "pairs", "val", "refcoco")
"""Scenes of a world, by folder."""
LENGTHS = ("loss.filter_warmup", "optim.warmup_steps", "train.checkpoint_every", "train.prompter_warmup_steps")
"""Config fields that are numbers of steps."""
FEWEST_SCENES, FEWEST_HELD_OUT = 64, 12


def scale_plan(plan: Plan, scale: float, lengths: dict[str, int]) -> Plan:
    """A plan with `scale` times its budget, world and step counts; the world gets a folder of its own.

    Args:
        plan: the whole plan.
        scale: above 0, at most 1.
        lengths: values of `LENGTHS` in the base config, where the plan does not set them.

    Raises:
        ValueError: the scale is out of range.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"--scale: expected a number above 0 and at most 1, got {scale:g}")
    if scale == 1:
        return plan
    raw = plan.model_dump()
    raw["world"]["folder"] += f"-x{scale:g}"
    raw["world"]["options"].update(_scale_scenes(plan, scale))
    raw["set"] = _scale_lengths({**lengths, **raw["set"]}, scale)
    raw["budget"] = _scale_budget(plan.budget, scale)
    for name, arm in plan.arms.items():
        raw["arms"][name]["set"] = _scale_lengths(arm.set, scale)
        raw["arms"][name]["budget"] = None if arm.budget is None else _scale_budget(arm.budget, scale)
    return Plan.model_validate(raw)


def _scale_scenes(plan: Plan, scale: float) -> dict[str, int]:
    from cloc.scenes.world import make_preset

    usual = asdict(make_preset(plan.world.preset))
    counts = {name: int(plan.world.options.get(name, usual[name])) for name in COUNTS}
    least = {name: FEWEST_HELD_OUT if name in ("val", "refcoco") else FEWEST_SCENES for name in COUNTS}
    return {name: min(count, max(least[name], round(count * scale))) for name, count in counts.items()}


def _scale_lengths(fields: dict[str, Any], scale: float) -> dict[str, Any]:
    return {name: max(1, round(v * scale)) if _is_length(name) and v else v for name, v in fields.items()}


def _is_length(name: str) -> bool:
    return name in LENGTHS or name.endswith(".from_step")


def _scale_budget(budget: Budget, scale: float) -> dict[str, Any]:
    raw = budget.model_dump()
    return {**raw, **{name: max(1, round(raw[name] * scale)) for name in ("samples", "steps") if raw[name]}}
