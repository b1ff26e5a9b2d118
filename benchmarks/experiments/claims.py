"""What a plan claims, in one line each, and what the seeds say about it.

    ARM > [FACTOR *] ARM on METRIC [against METRIC]      the left one is better
    ARM <= [FACTOR *] ARM on METRIC within MARGIN        the left one gains nothing that matters
    ARM >= [FACTOR *] ARM on METRIC within MARGIN        the left one loses nothing that matters

`against` reads the right arm on another metric. The difference left - FACTOR * right is taken seed by seed, with its
95 % interval of Student's t over the seeds. `>` agrees where the whole interval lies above 0 and disagrees where it
lies below; `<=` agrees where it ends at or below MARGIN and disagrees where it begins above it; `>=` is its mirror
image. All else is "not distinguishable"; fewer than two common seeds are "not measured". No correction for the number
of claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student

LEVEL = 0.95
AGREES, DISAGREES, UNCLEAR, UNMEASURED = "agrees", "disagrees", "not distinguishable", "not measured"
_NAME = r"[\w.@+-]+"
_CLAIM = re.compile(
    rf"(?P<left>{_NAME}) (?P<sign>>=|<=|>) (?:(?P<factor>\d*\.?\d+) \* )?(?P<right>{_NAME}) on (?P<metric>{_NAME})"
    rf"(?: against (?P<other>{_NAME}))?(?: within (?P<margin>\d*\.?\d+))?"
)


@dataclass(frozen=True)
class Claim:
    """One line of a plan, taken apart.

    Attributes:
        left, right: arms.
        sign: `>`, `<=` or `>=`.
        factor: of the right side.
        metric, other: names in the plan, of the left and of the right side.
        margin: in the metric's unit; 0 for `>`.
        text: as it was written.
    """

    left: str
    sign: str
    factor: float
    right: str
    metric: str
    other: str
    margin: float
    text: str


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
        values: one a seed.
        mean: None without values.
        deviation: sample standard deviation; None below two seeds.
        ci95: Student's interval of the mean; None below two seeds.
    """

    values: tuple[float, ...]
    mean: float | None
    deviation: float | None
    ci95: tuple[float, float] | None


def parse_claim(text: str) -> Claim:
    """Read a claim.

    Raises:
        ValueError: it is none.
    """
    found = _CLAIM.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(
            f"claim {text!r}: expected `ARM > ARM on METRIC`, or `ARM <= ARM on METRIC within MARGIN` (also >=), with "
            "`FACTOR *` before the second arm and `against METRIC` where needed"
        )
    margin = found["margin"]
    if (found["sign"] == ">") != (margin is None):
        need = "takes no margin" if margin is not None else "needs `within MARGIN`, the difference that does not matter"
        raise ValueError(f"claim {text!r}: {found['sign']} {need}")
    return Claim(
        found["left"],
        found["sign"],
        float(found["factor"] or 1),
        found["right"],
        found["metric"],
        found["other"] or found["metric"],
        float(margin or 0),
        text,
    )


def measure_spread(values: Sequence[float]) -> Spread:
    """Mean, deviation and Student's 95 % interval of a few values."""
    values = tuple(float(value) for value in values)
    if len(values) < 2:
        return Spread(values, values[0] if values else None, None, None)
    mean, deviation = fmean(values), stdev(values)
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation / sqrt(len(values))
    return Spread(values, mean, deviation, (mean - half, mean + half))


def judge_claim(claim: Claim, difference: Spread) -> str:
    """What the paired difference says about the claim; the rule is at the top of this file."""
    if difference.ci95 is None:
        return UNMEASURED
    low, high = difference.ci95
    if claim.sign == "<=":
        low, high = -high, -low
    at_least = -claim.margin
    if low > at_least or (claim.sign != ">" and low == at_least):
        return AGREES
    return DISAGREES if high < at_least else UNCLEAR
