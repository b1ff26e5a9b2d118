"""Precision over recall by LVIS's frequency of the category."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.examples import Chart, Curve
from benchmarks.metrics import lvis_ap

FREQUENCY_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
FREQUENCIES = tuple(FREQUENCY_NAMES)


def by_frequency(frequencies: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Name of each frequency group to the mask of its categories."""
    return {f"{kind} ({name})": frequencies == kind for kind, name in FREQUENCY_NAMES.items()}


def precision_chart(title: str, curves: lvis_ap.LvisCurves, groups: Mapping[str, NDArray[np.bool_]]) -> Chart:
    """Precision over recall, mean over the categories of each group; groups without annotation have no line."""
    levels = {name: curves.precision_at_recall(chosen) for name, chosen in groups.items()}
    recall = tuple(lvis_ap.RECALLS.tolist())
    lines = tuple(Curve(name, recall, tuple(values.tolist())) for name, values in levels.items() if values is not None)
    return Chart(title, "recall", "precision", lines)
