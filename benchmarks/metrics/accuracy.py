"""Answers of classification beside what no look at the image would reach.

Letters: K examples, C candidate classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def find_nearest(similarity: object) -> NDArray[np.int64]:
    """(K,) the nearest of C classes, from (K, C) similarities; of equal ones the first."""
    scores = np.asarray(similarity)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"top1: expected (K, C) similarities with C of at least 1, got {scores.shape}")
    return scores.argmax(axis=1)


def score_top1(predicted: object, classes: object) -> NDArray[np.float64]:
    """(K,) 1.0 where the predicted class is the right one."""
    answers, truth = np.asarray(predicted), np.asarray(classes)
    if answers.shape != truth.shape:
        raise ValueError(f"top1: expected one answer for each example, got {answers.shape} for {truth.shape}")
    return (answers == truth).astype(np.float64)


@dataclass(frozen=True)
class Blind:
    """What answers that do not look reach.

    Attributes:
        chance: a class drawn evenly from the candidates.
        constant_top1: always the most frequent class.
        constant_class_mean: always one class that occurs: right on that class, wrong on all others.
    """

    chance: float
    constant_top1: float
    constant_class_mean: float


def score_blind(classes: object, num_candidates: int) -> Blind:
    """Blind figures for the (K,) true classes, K at least 1, among `num_candidates`."""
    _, counts = np.unique(np.asarray(classes), return_counts=True)
    if counts.size == 0 or num_candidates < counts.size:
        raise ValueError(f"blind: expected 1 to {num_candidates} different classes, got {counts.size}")
    return Blind(1.0 / num_candidates, float(counts.max() / counts.sum()), 1.0 / counts.size)
