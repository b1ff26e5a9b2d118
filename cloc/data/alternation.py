"""Hybrid training (DetCLIPv2 3.4): every iteration holds data of one kind, drawn by odds.

Which kind a step has is a pure function of (seed, step), so a run goes on exactly where it stopped, with any number of
ranks and workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from cloc.data.order import draw
from cloc.structures import Batch, ConceptBatch


class KindBatches(Protocol):
    """Numbered batches of one kind."""

    def batch(self, number: int) -> Batch | ConceptBatch:
        """Batch `number`, from 0."""
        ...


WINDOW = 50
"""Steps that are shuffled among themselves."""


def make_schedule(
    odds: Mapping[str, float], steps: int, seed: int, starts: Mapping[str, int] | None = None
) -> np.ndarray:
    """(steps,) int64: which kind (row of `odds`) each step has; a longer schedule begins with the shorter one.

    The paper draws each step by itself; here every window of steps holds the kinds in their proportion, carried over
    from window to window, in random order: runs of equal length and odds have equally many steps of each kind.

    Args:
        odds: of each kind, not necessarily summing to one.
        steps: of the run.
        seed: the run's.
        starts: the first step of a kind; 0 for a kind that is not named. The odds hold among those that have begun.

    Raises:
        ValueError: an odd is negative, or no kind with an odd above 0 begins at step 0.
    """
    shares = np.array([float(value) for value in odds.values()])
    first = np.array([(starts or {}).get(kind, 0) for kind in odds])
    if not len(shares) or (shares < 0).any() or (shares * (first == 0)).sum() <= 0:
        given = f"{dict(odds)}, beginning at {first.tolist()}"
        raise ValueError(f"data: expected weights of at least 0, one above 0 that begins at step 0, got {given}")
    kinds, owed = np.empty(-(-steps // WINDOW) * WINDOW, dtype=np.int64), np.zeros(len(shares))
    edges = sorted({*range(0, len(kinds) + 1, WINDOW), *(step for step in first.tolist() if step < len(kinds))})
    for edge, end in pairwise(edges):
        begun = shares * (first <= edge)
        begun /= begun.sum()
        for step in range(edge, end):
            owed += begun
            kinds[step] = owed.argmax()
            owed[kinds[step]] -= 1.0
        kinds[edge:end] = draw(seed, "kinds", edge).permutation(kinds[edge:end])
    return kinds[:steps]


def compute_shares(odds: Mapping[str, float], steps: int, starts: Mapping[str, int]) -> dict[str, float]:
    """Share of the steps of a run that each kind has; what `make_schedule` gives, up to rounding."""
    edges = sorted({0, steps, *(step for step in starts.values() if step < steps)})
    found = dict.fromkeys(odds, 0.0)
    for edge, end in pairwise(edges):
        begun = {kind: odd for kind, odd in odds.items() if starts.get(kind, 0) <= edge}
        for kind, odd in begun.items():
            found[kind] += odd / sum(begun.values()) * (end - edge) / steps
    return found


class Alternation(IterableDataset):
    """The batches of one rank, each of one kind.

    Args:
        kinds: how each kind makes its numbered batches.
        odds: of each kind, not necessarily summing to one.
        seed: the run's seed.
        accumulation: batches a step; all of one step have its kind.
        first_step, last_step: optimiser steps [first, last) are produced.
        starts: the first step of a kind, 0 where it is not named.
    """

    def __init__(
        self,
        kinds: Mapping[str, KindBatches],
        odds: Mapping[str, float],
        seed: int,
        accumulation: int,
        first_step: int,
        last_step: int,
        starts: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.kinds, self.accumulation = list(kinds.values()), accumulation
        self.first_step, self.last_step = first_step, last_step
        self.kind_of_step = make_schedule({name: odds[name] for name in kinds}, last_step, seed, starts)
        each = self.kind_of_step[:, None] == np.arange(len(self.kinds))
        self.earlier = (np.cumsum(each, axis=0) - each)[np.arange(last_step), self.kind_of_step]

    def batch(self, number: int) -> Batch | ConceptBatch:
        """Batch `number` of the run, counted over steps and their accumulated parts."""
        step, part = divmod(number, self.accumulation)
        kind = self.kinds[int(self.kind_of_step[step])]
        return kind.batch(int(self.earlier[step]) * self.accumulation + part)

    def __iter__(self) -> Iterator[Batch | ConceptBatch]:
        worker = get_worker_info()
        index, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first, last = self.first_step * self.accumulation, self.last_step * self.accumulation
        for number in range(first + index, last, workers):
            yield self.batch(number)
