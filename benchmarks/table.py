"""The table that is printed: one block a task and data set, one line a figure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmarks.comparison import Compared, describe_readout
from benchmarks.rows import Row

RENDERED = "rendered scenes: says nothing about real photographs"
CLEAR = "*"
BELOW = "below constant"
LEGEND = (
    f"[low, high]: 95 % interval, bootstrap over images; {CLEAR}: the interval of the difference is clear of 0\n"
    f"constant: the best answer that never looks at the image; {BELOW}: it reaches more than the model"
)
_WORDS = ("split", "protocol", "metric", "read by", "A read by", "B read by", "")
"""Columns that are set to the left; figures are set to the right."""


def format_rows(rows: Sequence[Row]) -> str:
    """Figures of one model (or several, one line each)."""
    several = len({row.model for row in rows}) > 1
    head = ["split", "protocol", "read by", "metric", "value", "constant", "", "chance", "95 %", "examples", "skipped"]
    lines = [
        [
            row.split,
            row.protocol,
            f"{row.model}: {row.predictor}" if several else row.predictor,
            row.metric,
            format_number(row.value),
            format_number(row.constant),
            BELOW if row.below_constant else "",
            format_number(row.chance),
            format_interval(row.ci95),
            f"{row.num_examples:,}",
            f"{row.num_skipped:,}",
        ]
        for row in rows
    ]
    return _blocks(head, rows, lines)


def format_comparison(compared: Sequence[Compared]) -> str:
    """Both models, the difference and its interval; empty without a comparison."""
    rows = [one.a.row for one in compared]
    head = ["split", "protocol", "metric", "A", "B", "constant", "B read by", "A - B", "95 %", "", "chance", "examples"]
    lines = [
        [
            one.a.row.split,
            one.a.row.protocol,
            one.a.row.metric,
            format_number(one.a.row.value),
            format_number(one.b.row.value),
            format_number(one.a.row.constant),
            describe_readout(one.b, one.readouts_b),
            f"{one.difference.value:+.3f}",
            format_interval(one.difference.ci95, sign=True),
            ", ".join([*([CLEAR] if one.difference.clear_of_zero else []), *list_below_constant(one)]),
            format_number(one.a.row.chance),
            f"{one.a.row.num_examples:,}",
        ]
        for one in compared
        if one.difference is not None
    ]
    if any(one.readouts_a > 1 for one in compared):
        for cells, one in zip([head, *lines], [None, *compared], strict=True):
            cells.insert(4, "A read by" if one is None else describe_readout(one.a, one.readouts_a))
    if not compared:
        return ""
    read = "" if compared[0].readouts_a > 1 else f" ({rows[0].predictor})"
    return f"\nA = {rows[0].model}{read}   B = {compared[0].b.row.model}\n{_blocks(head, rows, lines)}\n"


def list_below_constant(one: Compared) -> list[str]:
    """`A below constant`, `B below constant`, where it is so."""
    return [f"{name} {BELOW}" for name, own in (("A", one.a), ("B", one.b)) if own.row.below_constant]


def format_number(value: float | None) -> str:
    """Three decimals for shares, fewer for large figures, a dash for none."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def format_interval(bounds: tuple[float, float] | None, sign: bool = False) -> str:
    """`[0.701, 0.779]`, a dash for none."""
    if bounds is None:
        return "-"
    low, high = (f"{bound:+.3f}" if sign else f"{bound:.3f}" for bound in bounds)
    return f"[{low}, {high}]"


def _blocks(head: list[str], rows: Sequence[Row], lines: list[list[str]]) -> str:
    """A title where the task or data set changes, aligned columns, and below each block what it lacks and why."""
    texts: list[str] = []
    pairs = list(zip(rows, lines, strict=True))
    for (task, dataset, data), block in groupby(pairs, key=lambda pair: (pair[0].task, pair[0].dataset, pair[0].data)):
        members = list(block)
        note = f" ({RENDERED})" if data == "rendered" else ""
        texts += ["", f"{task} on {dataset}, {data}{note}" if data else f"{task}: no data"]
        if data:
            shown = [head, *(line for _, line in members)]
            widths = [max(len(line[column]) for line in shown) for column in range(len(head))]
            texts += [_aligned(head, line, widths) for line in shown]
        texts += list_speeds([row for row, _ in members])
        texts += list_reasons([row for row, _ in members])
        texts += list_without_constant([row for row, _ in members])
    return "\n".join(texts)


def list_speeds(rows: Sequence[Row]) -> list[str]:
    """Images a second of each reading that answered about images."""
    rates = {(row.model, row.predictor): row.images_per_second for row in rows if row.images_per_second}
    return [f"  {model}, {predictor}: {speed:,.1f} images a second" for (model, predictor), speed in rates.items()]


def list_reasons(rows: Sequence[Row]) -> list[str]:
    """Each reason once, after the splits (and figures, where there is none) that it explains, if not all."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            label = row.split if row.value is not None else f"{row.split} {row.metric}"
            about.setdefault(row.reason, []).append(label)
    return [
        f"  {reason}" if len(labels) == len(rows) else f"  {', '.join(dict.fromkeys(labels))}: {reason}"
        for reason, labels in about.items()
    ]


def list_without_constant(rows: Sequence[Row]) -> list[str]:
    """Why figures have no chance or no constant, each reason once, after the figures that it is about, if not all."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.no_constant and row.value is not None:
            about.setdefault(row.no_constant, []).append(row.metric)
    return [
        f"  {why}" if len(metrics) == len(rows) else f"  {', '.join(dict.fromkeys(metrics))}: {why}"
        for why, metrics in about.items()
    ]


def _aligned(head: list[str], cells: list[str], widths: list[int]) -> str:
    padded = [
        cell.ljust(width) if name in _WORDS else cell.rjust(width)
        for name, cell, width in zip(head, cells, widths, strict=True)
    ]
    return "  " + "  ".join(padded).rstrip()


def summarize(rows: Sequence[Row]) -> str:
    """The table of one predictions file; at least one row."""
    first = rows[0]
    where = "rendered scenes: says nothing about real photographs" if first.data == "rendered" else "real"
    head = ["protocol", *dict.fromkeys(row.metric for row in rows)]
    lines = [head]
    for protocol, block in groupby(rows, key=lambda row: row.protocol):
        members = list(block)
        lines.append([protocol, *(_four_decimals(row.value) for row in members)])
        if any(row.ci95 for row in members):
            lines.append(
                ["95 %", *("-" if row.ci95 is None else "[{:.3f}, {:.3f}]".format(*row.ci95) for row in members)]
            )
        for name in ("constant", "chance"):
            blind = [getattr(row, name) for row in members]
            if any(value is not None for value in blind):
                lines.append([name, *map(_four_decimals, blind)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [f"{first.task} on {first.dataset} {first.split}, {where}: {first.model}"]
    for name, *cells in lines:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        texts.append("  " + "  ".join([name.ljust(widths[0]), *padded]))
    unit = "expressions" if first.task == "grounding" else "images"
    texts.append(f"  {first.num_examples:,} {unit}, {first.num_skipped:,} predictions skipped")
    texts += [f"  {reason}" for reason in dict.fromkeys(row.reason for row in rows if row.value is not None) if reason]
    below = list(dict.fromkeys(row.metric for row in rows if row.below_constant))
    texts += [f"  {', '.join(below)}: {BELOW}, the best answer that never looks at the image"] if below else []
    texts += list_without_constant(rows)
    return "\n".join(texts)


def _four_decimals(value: float | None) -> str:
    """Four decimals, a dash where there is nothing of that kind."""
    return "-" if value is None else f"{value:.4f}"
