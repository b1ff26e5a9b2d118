"""`--scale`: the same plan, smaller, to see that it runs through. Its figures mean nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.experiments.plan import Budget, Plan

COUNTS = ("train", "detection", "grounding", "pairs", "val", "refcoco")
"""Scenes of a world, by folder."""
LENGTHS = ("loss.filter_warmup", "optim.warmup_steps", "train.checkpoint_every", "train.prompter_warmup_steps")
"""Config fields that are numbers of steps."""
FEWEST_SCENES, FEWEST_HELD_OUT = 64, 12


def scaled(plan: Plan, scale: float, lengths: dict[str, int]) -> Plan:
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
    raw["world"]["options"].update(_fewer_scenes(plan, scale))
    raw["set"] = _shorter({**lengths, **raw["set"]}, scale)
    raw["budget"] = _smaller(plan.budget, scale)
    for name, arm in plan.arms.items():
        raw["arms"][name]["set"] = _shorter(arm.set, scale)
        raw["arms"][name]["budget"] = None if arm.budget is None else _smaller(arm.budget, scale)
    return Plan.model_validate(raw)


def _fewer_scenes(plan: Plan, scale: float) -> dict[str, int]:
    from cloc.scenes.world import make_preset

    usual = asdict(make_preset(plan.world.preset))
    counts = {name: int(plan.world.options.get(name, usual[name])) for name in COUNTS}
    least = {name: FEWEST_HELD_OUT if name in ("val", "refcoco") else FEWEST_SCENES for name in COUNTS}
    return {name: min(count, max(least[name], round(count * scale))) for name, count in counts.items()}


def _shorter(fields: dict[str, Any], scale: float) -> dict[str, Any]:
    return {name: max(1, round(v * scale)) if _is_length(name) and v else v for name, v in fields.items()}


def _is_length(name: str) -> bool:
    return name in LENGTHS or name.endswith(".from_step")


def _smaller(budget: Budget, scale: float) -> dict[str, Any]:
    raw = budget.model_dump()
    return {**raw, **{name: max(1, round(raw[name] * scale)) for name in ("samples", "steps") if raw[name]}}
