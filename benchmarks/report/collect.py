"""What the page of a run holds: its rows, the curves of training and of tasks, and a section of examples each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.comparison import Compared
from benchmarks.examples import Chart, Curve
from benchmarks.report.examples import Readout, Section, make_section
from benchmarks.report.page import Report
from benchmarks.rows import Row
from benchmarks.runner import TaskRunner
from cloc.files import read_json_lines

METRICS = "metrics.jsonl"
FIELDS = ("loss", "image_text_accuracy", "region_text_accuracy", "gradient_norm")
"""What is drawn of a run's metrics, as far as it is there."""
_POINTS = 200


def collect_report(runner: TaskRunner, rows: Sequence[Row], compared: Sequence[Compared]) -> Report:
    """Everything of a finished run.

    Args:
        runner: after its run.
        rows: figures that stand alone.
        compared: figures of A beside B.
    """
    exports = {model.label: model.folder for model in runner.models if model.folder is not None}
    charts = [*make_training_charts(exports), *(chart for one in runner.report_inputs for chart in one.charts)]
    return Report(tuple(model.label for model in runner.models), rows, compared, charts, make_sections(runner))


def make_sections(runner: TaskRunner) -> list[Section]:
    """One section a task and split: the best readout of each model."""
    with_examples = [(one, one.examples) for one in runner.report_inputs if one.examples and len(one.examples.keys)]
    sections = []
    for title in dict.fromkeys(one.title for one, _ in with_examples):
        readouts = []
        for index, model in enumerate(runner.models):
            inputs = [pair for pair in with_examples if (pair[0].title, pair[0].model_index) == (title, index)]
            if inputs:
                best, examples = max(inputs, key=lambda pair: pair[1].right.mean())
                predictor = best.predictor if hasattr(best.predictor, "encode_regions") else None
                readouts.append(Readout(f"{model.label} ({best.predictor.name})", examples, predictor))
        sections.append(make_section(title, readouts))
    return [section for section in sections if section.figures]


def make_training_charts(exports: Mapping[str, Path]) -> list[Chart]:
    """One chart a metric, one line a model.

    Args:
        exports: export folder of each model by its label.

    Returns:
        Nothing for models whose `metrics.jsonl` is not beside their export.
    """
    runs = {label: read_metrics(folder.resolve().parent / METRICS) for label, folder in exports.items()}
    charts = []
    for field in FIELDS:
        name = field.replace("_", " ")
        curves = [Curve(label, *_points(lines, field)) for label, lines in runs.items()]
        curves = [curve for curve in curves if len(curve.x) > 1]
        if curves:
            charts.append(Chart(f"training: {name}", "step", name, tuple(curves)))
    return charts


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics; none where there is no such file. A last line cut short is left out."""
    if not path.is_file():
        return []
    lines = (line for _, line in read_json_lines(path, "figures of a run", Counter()))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _points(lines: Sequence[Mapping[str, float]], field: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    points = [(float(line["step"]), float(line[field])) for line in lines if isinstance(line.get(field), int | float)]
    points = points[:: max(1, len(points) // _POINTS)]
    return tuple(x for x, _ in points), tuple(y for _, y in points)
