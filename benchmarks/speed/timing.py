"""Seconds of several works, taken in turn so that a busy machine hits them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from benchmarks.tasks.contract import Score

T = TypeVar("T")
COST = "a cost: there is nothing to guess"
"""Why seconds and memory have neither chance nor constant."""


def in_turn(works: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each work answered, `repeats` times; one round before is thrown away, since it warms up.

    The order changes from round to round, so that no work always follows the same other one.
    """
    answers: dict[str, list[T]] = {name: [] for name in works}
    names = list(works)
    for number in range(repeats + 1):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            answer = works[name]()
            if number:
                answers[name].append(answer)
    return answers


def seconds_of(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio_of(slow: Sequence[float], quick: Sequence[float]) -> float:
    """Median of the ratios of pairs."""
    return median(a / b for a, b in zip(slow, quick, strict=True))


def cost_scores(split: str, protocol: str, figures: Mapping[str, float], num_examples: int) -> list[Score]:
    """Seconds, rates or sizes by metric as scores."""
    return [
        Score(split, protocol, metric, value=value, num_examples=num_examples, no_constant=COST)
        for metric, value in figures.items()
    ]


def describe_threads() -> str:
    """The threads of this process, for a protocol id."""
    return f"{os.environ.get('OMP_NUM_THREADS', 'all')}-threads"
