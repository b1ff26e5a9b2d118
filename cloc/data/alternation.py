"""Hybrid training (DetCLIPv2 3.4): every iteration holds data of one kind, drawn by odds.

Which kind a step has is a pure function of (seed, step), so a run goes on exactly where it stopped, with any number of
ranks and workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def schedule(odds: Mapping[str, float], steps: int, seed: int) -> np.ndarray:
    """(steps,) int64: which kind (row of `odds`) each step has; a longer schedule begins with the shorter one.

    The paper draws each step by itself; here every window of steps holds the kinds in their proportion, carried over
    from window to window, in random order: runs of equal length and odds have equally many steps of each kind.

    Raises:
        ValueError: an odd is negative, or none is positive.
    """
    shares = np.array([float(value) for value in odds.values()])
    if not len(shares) or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"data: expected weights of at least 0 with one above, got {dict(odds)}")
    shares, owed = shares / shares.sum(), np.zeros(len(shares))
    kinds = np.empty(-(-steps // WINDOW) * WINDOW, dtype=np.int64)
    for step in range(len(kinds)):
        owed += shares
        kinds[step] = owed.argmax()
        owed[kinds[step]] -= 1.0
    for first in range(0, steps, WINDOW):
        kinds[first : first + WINDOW] = draw(seed, "kinds", first).permutation(kinds[first : first + WINDOW])
    return kinds[:steps]


class Alternation(IterableDataset):
    """The batches of one rank, each of one kind.

    Args:
        kinds: how each kind makes its numbered batches.
        odds: of each kind, not necessarily summing to one.
        seed: the run's seed.
        accumulation: batches a step; all of one step have its kind.
        first_step, last_step: optimiser steps [first, last) are produced.
    """

    def __init__(
        self,
        kinds: Mapping[str, KindBatches],
        odds: Mapping[str, float],
        seed: int,
        accumulation: int,
        first_step: int,
        last_step: int,
    ) -> None:
        super().__init__()
        self.kinds, self.accumulation = list(kinds.values()), accumulation
        self.first_step, self.last_step = first_step, last_step
        self.kind_of_step = schedule({name: odds[name] for name in kinds}, last_step, seed)
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
