"""The rows of a run as HTML tables: one a task and data set."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from benchmarks.comparison import Compared, reading
from benchmarks.rows import Row
from benchmarks.table import BELOW, RENDERED, interval_text, number, reasons, speeds, without_constant

HEADS = ("split and protocol", "figure", "value", "constant", "chance", "95 %", "examples", "skipped")
PAIR_HEADS = ("split and protocol", "figure", "A", "B", "constant", "A - B", "95 %", "chance", "examples")


def single(rows: Sequence[Row]) -> str:
    """Figures of one model, or of several one below the other."""
    several = len({(row.model, row.predictor) for row in rows}) > 1
    blocks = []
    for rows_of_one in _by_set(rows):
        cells = [
            [
                _where(row, f"{row.model}: {row.predictor}" if several else ""),
                escape(row.metric),
                _value(row),
                number(row.constant),
                number(row.chance),
                interval_text(row.ci95),
                f"{row.num_examples:,}",
                f"{row.num_skipped:,}",
            ]
            for row in rows_of_one
        ]
        blocks.append(_block(rows_of_one, HEADS, cells))
    return "\n".join(blocks)


def paired(compared: Sequence[Compared]) -> str:
    """A, B, the constant answer and the difference; a difference beyond noise is marked in words as well as by colour.

    A better A is not coloured where it stays below the answer that never looks: it is no success yet.
    """
    by_row = {id(one.a.row): one for one in compared}
    blocks = []
    for rows in _by_set([one.a.row for one in compared]):
        cells = []
        for row in rows:
            one = by_row[id(row)]
            clear = one.difference.clear_of_zero
            kind = ("clear worse" if one.difference.value < 0 else "clear") if clear else ""
            kind = "" if kind == "clear" and row.below_constant else kind
            told = f'<span class="{kind}">{one.difference.value:+.3f}{" *" if clear else ""}</span>'
            cells.append(
                [
                    _where(row, f"A {reading(one.a, one.readings_a)}, B {reading(one.b, one.readings_b)}"),
                    escape(row.metric),
                    _value(row),
                    _value(one.b.row),
                    number(row.constant),
                    told,
                    interval_text(one.difference.ci95, sign=True),
                    number(row.chance),
                    f"{row.num_examples:,}",
                ]
            )
        blocks.append(_block(rows, PAIR_HEADS, cells))
    return "\n".join(blocks)


def _value(row: Row) -> str:
    """The figure, and below it whether the constant answer reaches more."""
    return number(row.value) + (f'<small class="below">{BELOW}</small>' if row.below_constant else "")


def _by_set(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(block) for _, block in groupby(rows, key=lambda row: (row.task, row.dataset, row.data))]


def _where(row: Row, more: str) -> str:
    lines = [row.protocol, *([more] if more else [])]
    return escape(row.split) + "".join(f"<small>{escape(line)}</small>" for line in lines)


def _block(rows: Sequence[Row], heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    first = rows[0]
    title = f"{first.task} on {first.dataset}, {first.data}" if first.data else f"{first.task}: no data"
    parts = [f"<h3>{escape(title)}</h3>"]
    if first.data == "rendered":
        parts.append(f'<p class="faint">{RENDERED}</p>')
    if first.data:
        head = "".join(f'<th scope="col">{name}</th>' for name in heads)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in cells)
        parts.append(
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(title, quote=True)}">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    parts += [
        f'<p class="faint">{escape(text.strip())}</p>'
        for text in (*speeds(rows), *reasons(rows), *without_constant(rows))
    ]
    return "\n".join(parts)
