"""Recall@k of retrieval, with duplicates merged or every pair on its own, and the chance of both.

Letters: Q queries, N pool entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray


def score_merged(similarity: object, right: object, k: int) -> NDArray[np.float64]:
    """(Q,) 1.0 where one of the k best entries is right; any number of entries of a row may be right.

    Args:
        similarity: (Q, N), higher is nearer.
        right: (Q, N) bool, at least one True a row.
        k: how many entries are looked at. Equal similarities count against the query.
    """
    scores, positive = _checked(similarity, right)
    best = np.where(positive, scores, -np.inf).max(axis=1, keepdims=True)
    ahead = ((scores >= best) & ~positive).sum(axis=1)
    return (ahead < k).astype(np.float64)


def score_single(similarity: object, target: object, k: int) -> NDArray[np.float64]:
    """(Q,) how surely the one right entry is among the k best.

    Entries with exactly the target's similarity (texts that occur twice) share its place: the value is then the
    share of their orders in which the target is among the first k, between 0 and 1.

    Args:
        similarity: (Q, N).
        target: (Q,) column of the right entry.
        k: how many entries are looked at.
    """
    scores = np.asarray(similarity)
    own = scores[np.arange(len(scores)), np.asarray(target)][:, None]
    ahead, tied = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    return np.clip((k - ahead) / tied, 0.0, 1.0)


def find_merged_chance(num_right: int, pool: int, k: int) -> float:
    """The chance that k entries drawn from a pool hold at least one of the right ones."""
    if not 1 <= num_right <= pool:
        raise ValueError(f"merged chance: expected 1 to {pool} right entries, got {num_right}")
    drawn = min(k, pool)
    return 1.0 - comb(pool - num_right, drawn) / comb(pool, drawn)


def score_constant_recalls(right: object, ks: Sequence[int]) -> list[float]:
    """Recall@k of the best constant answer: the same k entries for every query, chosen on the evaluation set itself.

    Each entry is the one that is right for most of the queries that those before it leave (of equal ones the first).

    Args:
        right: (Q, N) bool.
        ks: how many entries are looked at, ascending.
    """
    positive = np.asarray(right, dtype=bool)
    left, reached = np.ones(len(positive), dtype=bool), []
    for _ in range(min(ks[-1], positive.shape[1])):
        left &= ~positive[:, np.count_nonzero(positive[left], axis=0).argmax()]
        reached.append(1.0 - float(left.mean()))
    return [reached[min(k, len(reached)) - 1] for k in ks]


def _checked(similarity: object, right: object) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    scores, positive = np.asarray(similarity), np.asarray(right, dtype=bool)
    if scores.shape != positive.shape or scores.ndim != 2:
        raise ValueError(f"recall: expected two (Q, N) arrays, got {scores.shape} and {positive.shape}")
    if not positive.any(axis=1).all():
        raise ValueError("recall: expected at least one right entry for each query, got a query with none")
    return scores, positive
