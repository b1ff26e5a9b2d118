"""The page: `report.html` filled in, with no script and no address but data inside the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks import table
from benchmarks.comparison import Compared, describe_readout
from benchmarks.examples import Chart
from benchmarks.report import charts
from benchmarks.report.examples import Section
from benchmarks.rows import Row
from cloc.disk import write_text

REPORT = "report.html"


@dataclass(frozen=True)
class Report:
    """What a page holds.

    Attributes:
        names: the models, A first; empty where a file of predictions was scored.
        rows: figures that stand alone.
        compared: figures of A beside B.
        charts: training curves and curves that tasks gave.
        sections: examples, one section a task and split.
    """

    names: tuple[str, ...]
    rows: Sequence[Row]
    compared: Sequence[Compared] = ()
    charts: Sequence[Chart] = ()
    sections: Sequence[Section] = ()


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html` into a folder. Returns its path."""
    path = folder / REPORT
    write_text(path, render_page(report))
    return path


def render_page(report: Report) -> str:
    """The page's HTML; what users name is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": table.format_number, "interval": table.format_interval}
    return environment.get_template(REPORT).render(
        report=report,
        title=" beside ".join(report.names) or "Scored predictions",
        rows=[*(one.a.row for one in report.compared), *report.rows],
        singles=group_by_set(report.rows),
        pairs=group_by_set([one.a.row for one in report.compared]),
        by_row={id(one.a.row): one for one in report.compared},
        several=len({(row.model, row.predictor) for row in report.rows}) > 1,
        mark_difference=mark_difference,
        describe_readout=describe_readout,
        list_notes=lambda rows: [
            *table.list_speeds(rows),
            *table.list_reasons(rows),
            *table.list_without_constant(rows),
        ],
        draw_chart=lambda chart: Markup(charts.draw_svg(chart)),
        below=table.BELOW,
        rendered=table.RENDERED,
        id=id,
    )


def group_by_set(rows: Sequence[Row]) -> list[list[Row]]:
    """Consecutive rows of one task and data set."""
    return [list(block) for _, block in groupby(rows, key=lambda row: (row.task, row.dataset, row.data))]


def mark_difference(one: Compared) -> str:
    """Class of a difference: none within noise; a better A below the answer that never looks is no success yet."""
    if one.difference is None or not one.difference.clear_of_zero:
        return ""
    if one.difference.value < 0:
        return "clear worse"
    return "" if one.a.row.below_constant else "clear"
