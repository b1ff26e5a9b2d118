"""Which examples teach most: those on which two readings differ, then sure mistakes and unsure hits.

Letters: K examples of A, L of B.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.examples import Gallery

A_ALONE, B_ALONE = "A right, B wrong", "A wrong, B right"
BOTH_WRONG, BOTH_RIGHT = "both wrong", "both right, A least sure"
WRONG, RIGHT = "wrong, and surest of it", "right, and least sure of it"


@dataclass(frozen=True)
class Chosen:
    """One example to show.

    Attributes:
        kind: why it was chosen.
        row_a: its row in A's gallery.
        row_b: its row in B's, None without a B.
    """

    kind: str
    row_a: int
    row_b: int | None = None


def choose(a: Gallery, b: Gallery | None, each: int = 2) -> list[Chosen]:
    """Up to `each` examples of every kind; of equal sureness the lower key.

    With one reading: its surest mistakes and its least sure hits. With two, on the examples that both answered: those
    that A alone gets right and those that B alone gets right (the one that is wrong being surest), surest common
    mistakes, least sure common hits.
    """
    if b is None:
        kinds = {WRONG: (~a.right, -a.sureness), RIGHT: (a.right, a.sureness)}
        return [Chosen(kind, row) for kind, (of, by) in kinds.items() for row in _first(of, by, a.keys, each)]
    keys, rows_a, rows_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    right_a, right_b = a.right[rows_a], b.right[rows_b]
    sure_a, sure_b = a.sureness[rows_a], b.sureness[rows_b]
    kinds = {
        A_ALONE: (right_a & ~right_b, -sure_b),
        B_ALONE: (~right_a & right_b, -sure_a),
        BOTH_WRONG: (~right_a & ~right_b, -sure_a),
        BOTH_RIGHT: (right_a & right_b, sure_a),
    }
    return [
        Chosen(kind, int(rows_a[place]), int(rows_b[place]))
        for kind, (of, by) in kinds.items()
        for place in _first(of, by, keys, each)
    ]


def _first(of: np.ndarray, by: np.ndarray, keys: np.ndarray, count: int) -> list[int]:
    """Rows in `of`, lowest `by` first."""
    order = np.lexsort((keys, by))
    return order[of[order]][:count].tolist()
