"""What the trial does, fixed before it runs: arms, seeds, budget, and when a run stops."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cloc.config import Strict, find_config, read_config

ARMS = ("clip", "cloc", "cloc_regions")
"""CLIP tower, CLOC tower, CLOC tower with region tokens; everything else is equal."""
Arm = Literal["clip", "cloc", "cloc_regions"]
Kind = Literal["referring", "grounding", "counting", "yesno", "caption"]


class LanguagePlan(Strict):
    """The language model, a Llama with words as tokens, from random weights."""

    width: int = Field(144, ge=16)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    context: int = Field(512, ge=32, description="tokens of image and words")


class TrialPlan(Strict):
    """The whole trial. No field may differ between arms, and none is changed after a look at a result."""

    exports: dict[Literal["clip", "cloc"], str] = Field(description="two exports of one size, trained on the same data")
    world: str = Field("data/scenes", description="a rendered world with conversations, coordinates in bins")
    arms: tuple[Arm, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    bins: int = Field(32, ge=2)
    kinds: tuple[Kind, ...] = Field(("referring", "grounding"), min_length=1, description="questions trained on")
    language: LanguagePlan = LanguagePlan()
    steps: int = Field(600, ge=1, description="the stopping rule: so many steps, last weights, nothing selected")
    batch_size: int = Field(32, ge=1)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    questions: int = Field(600, ge=1, description="held-out questions of each kind, the first ones of the file")
    minutes: float = Field(10.0, gt=0, description="a run that takes longer is said to have broken its budget")


def load_plan(path: str, budget: float = 1.0) -> TrialPlan:
    """Read a plan; `budget` below 1 shortens steps and questions, to see that everything runs.

    Raises:
        ValueError: the file is missing, a key is unknown, or a value does not fit.
    """
    if not 0 < budget <= 1:
        raise ValueError(f"--budget: expected a share above 0 and up to 1, got {budget}")
    plan = read_config(TrialPlan, find_config(path, "configs/bridge"))
    shorter = {"steps": max(1, round(plan.steps * budget)), "questions": max(1, round(plan.questions * budget))}
    return plan.model_copy(update=shorter)
