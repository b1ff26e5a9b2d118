"""The page: tables, charts, examples drawn on their images, similarity maps; written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from benchmarks.comparison import Compared
from benchmarks.examples import Chart
from benchmarks.report import charts, tables
from benchmarks.report.examples import Section
from benchmarks.report.style import SHEET
from benchmarks.rows import Row
from cloc.disk import write_text

REPORT = "report.html"


@dataclass(frozen=True)
class Story:
    """What a page tells.

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
    sections: Sequence[Section] = field(default=())


def write_report(story: Story, folder: Path) -> Path:
    """Write `report.html` into a folder. Returns its path."""
    path = folder / REPORT
    write_text(path, page(story))
    return path


def page(story: Story) -> str:
    """The page's HTML: no script, no address but data inside the file."""
    title = " beside ".join(story.names) or "Scored predictions"
    body = [f"<h1>{escape(title)}</h1>", *_head(story)]
    if story.compared:
        body += ["<h2>A beside B</h2>", tables.paired(story.compared)]
    alone = [tables.single(story.rows)] if story.rows else []
    if alone and not story.compared:
        body += ["<h2>Figures</h2>", *alone]
    if story.charts:
        frames = [f"<figure><figcaption>{escape(c.title)}</figcaption>{charts.svg(c)}</figure>" for c in story.charts]
        body += ["<h2>Curves</h2>", f'<div class="cards">{"".join(frames)}</div>']
    if story.sections:
        body += ["<h2>Examples</h2>", _key(len(story.names) > 1)]
        body += [_section(section) for section in story.sections]
    if alone and story.compared:
        body += ["<h2>Further figures</h2>", *alone]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{SHEET}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(story: Story) -> list[str]:
    rows = [*(one.a.row for one in story.compared), *story.rows]
    parts = []
    if len(story.names) > 1:
        parts.append(f"<p>A = {escape(story.names[0])}, B = {escape(story.names[1])}</p>")
    if any(row.data == "rendered" for row in rows):
        told = "Rendered scenes show that a method works; they say nothing about real photographs."
        parts.append(f'<p class="note">{told}</p>')
    parts.append(
        '<p class="faint">95 %: bootstrap over images, paired for differences. * and colour: the interval of the '
        "difference is clear of 0. chance: blind guessing; constant: the best answer that never looks; a model below "
        "it has shown nothing yet, and no difference of it is coloured as a success.</p>"
    )
    if rows:
        known = "; ".join(f"{name} {version}" for name, version in rows[0].versions.items())
        from_where = escape(f"commit {rows[0].commit}; {rows[0].machine}; {known}")
        parts.append(f'<p class="faint">{from_where}</p>')
    return parts


def _key(pair: bool) -> str:
    sides = " Left: A, right: B." if pair else ""
    return (
        '<p class="faint">Yellow: what is asked about. Green: the right answer. Red: the model\'s answer. '
        f"Chosen by rule, not by hand: sure mistakes and unsure hits.{sides} In a map, bright places are near the "
        "phrase (stretched from the lowest to the highest place of that image).</p>"
    )


def _section(section: Section) -> str:
    figures = []
    for shown in section.figures:
        pictures = "".join(
            f'<div><img src="{picture.source}" alt="{escape(picture.words, quote=True)}">'
            f"<p>{escape(picture.caption)}</p></div>"
            for picture in shown.pictures
        )
        layout = "pair" if len(shown.pictures) > 1 else "single"
        figures.append(
            f"<figure><figcaption><strong>{escape(shown.kind)}</strong><br>{escape(shown.question)}</figcaption>"
            f'<div class="{layout}">{pictures}</div></figure>'
        )
    return f'<h3>{escape(section.title)}</h3>\n<div class="cards">{"".join(figures)}</div>'
