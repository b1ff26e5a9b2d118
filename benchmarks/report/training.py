"""The training curves of a run, where the export still lies in its run's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.examples import Chart, Curve
from cloc.files import read_json_lines

METRICS = "metrics.jsonl"
FIELDS = ("loss", "image_text_accuracy", "region_text_accuracy", "gradient_norm")
"""What is drawn of a run's metrics, as far as it is there."""
_POINTS = 200


def training_charts(exports: Mapping[str, Path]) -> list[Chart]:
    """One chart a metric, one line a model.

    Args:
        exports: export folder of each model by its label.

    Returns:
        Nothing for models whose `metrics.jsonl` is not beside their export.
    """
    runs = {label: read_metrics(folder.resolve().parent / METRICS) for label, folder in exports.items()}
    charts = []
    for field in FIELDS:
        curves = [Curve(label, *_points(lines, field)) for label, lines in runs.items()]
        curves = [curve for curve in curves if len(curve.x) > 1]
        if curves:
            charts.append(Chart(f"training: {field.replace('_', ' ')}", "step", field.replace("_", " "), tuple(curves)))
    return charts


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics; none where there is no such file. A last line cut short is left out."""
    if not path.is_file():
        return []
    lines = (line for _, line in read_json_lines(path, "figures of a run", Counter()))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _points(lines: Sequence[Mapping[str, float]], field: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    there = [(float(line["step"]), float(line[field])) for line in lines if isinstance(line.get(field), int | float)]
    there = there[:: max(1, len(there) // _POINTS)]
    return tuple(x for x, _ in there), tuple(y for _, y in there)
