"""What is printed of a scored file: one line a protocol, one column a metric."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmarks.rows import Row
from benchmarks.table import BELOW, without_constant


def summary(rows: Sequence[Row]) -> str:
    """The table of one predictions file; at least one row."""
    first = rows[0]
    where = "rendered scenes: says nothing about real photographs" if first.data == "rendered" else "real"
    head = ["protocol", *dict.fromkeys(row.metric for row in rows)]
    lines = [head]
    for protocol, block in groupby(rows, key=lambda row: row.protocol):
        members = list(block)
        lines.append([protocol, *(_number(row.value) for row in members)])
        if any(row.ci95 for row in members):
            lines.append(
                ["95 %", *("-" if row.ci95 is None else "[{:.3f}, {:.3f}]".format(*row.ci95) for row in members)]
            )
        for name in ("constant", "chance"):
            blind = [getattr(row, name) for row in members]
            if any(value is not None for value in blind):
                lines.append([name, *map(_number, blind)])
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
    texts += without_constant(rows)
    return "\n".join(texts)


def _number(value: float | None) -> str:
    """Four decimals, a dash where there is nothing of that kind."""
    return "-" if value is None else f"{value:.4f}"
