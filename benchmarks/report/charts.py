"""Line charts as inline SVG, and the curves of precision over recall by LVIS's frequency of the category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from benchmarks.examples import Chart, Curve
from benchmarks.metrics import lvis_ap

FREQUENCY_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
FREQUENCIES = tuple(FREQUENCY_NAMES)
COLOURS = ("#2f6fb0", "#c8553d", "#3a8f5c", "#8b5fbf", "#b8860b", "#5f6b7a")
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 480, 250, 48, 22, 12, 36
_DASHES = ("", "6 3", "2 3")


def draw_svg(chart: Chart) -> str:
    """The chart, with a title for those who cannot see it. Lines differ in colour and in their dashes."""
    points = [(x, y) for curve in chart.curves for x, y in zip(curve.x, curve.y, strict=True)]
    xs, ys = [p[0] for p in points] or [0.0], [p[1] for p in points] or [0.0]
    x_range, y_range = _range(xs), _range([*ys, 0.0] if min(ys) >= 0 else ys)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_words(chart), quote=True)}">',
        *_axes(chart, x_range, y_range),
    ]
    for number, curve in enumerate(chart.curves):
        line = " ".join(
            f"{_locate(x, x_range, _LEFT, _WIDTH - _RIGHT):.1f},{_locate(y, y_range, _HEIGHT - _BOTTOM, _TOP):.1f}"
            for x, y in zip(curve.x, curve.y, strict=True)
        )
        dashes = _DASHES[number // len(COLOURS) % len(_DASHES)]
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="2" '
            f'stroke-dasharray="{dashes}"/>'
        )
    return "".join([*parts, "</svg>", _legend([curve.name for curve in chart.curves])])


def _legend(names: Sequence[str]) -> str:
    """Which colour is which."""
    marks = [
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    ]
    return f'<p class="legend">{"".join(marks)}</p>'


def _words(chart: Chart) -> str:
    ends = [f"{curve.name} ends at {curve.y[-1]:.3g}" for curve in chart.curves if curve.y]
    return f"{chart.title}: {chart.y_name} over {chart.x_name}; {', '.join(ends) or 'no points'}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _locate(value: float, span: tuple[float, float], start: float, end: float) -> float:
    return start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def _axes(chart: Chart, x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    parts = []
    for step in range(5):
        share = step / 4
        y_value, x_value = (span[0] + share * (span[1] - span[0]) for span in (y_range, x_range))
        y, x = _locate(share, (0, 1), _HEIGHT - _BOTTOM, _TOP), _locate(share, (0, 1), _LEFT, _WIDTH - _RIGHT)
        anchor = "end" if step == 4 else "middle"
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_value:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="{anchor}">{_tick(x_value)}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(chart.x_name)}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 8}">{escape(chart.y_name)}</text>')
    return parts


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"


def group_by_frequency(frequencies: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Name of each frequency group to the mask of its categories."""
    return {f"{kind} ({name})": frequencies == kind for kind, name in FREQUENCY_NAMES.items()}


def make_precision_chart(title: str, curves: lvis_ap.LvisCurves, groups: Mapping[str, NDArray[np.bool_]]) -> Chart:
    """Precision over recall, mean over the categories of each group; groups without annotation have no line."""
    levels = {name: curves.precision_at_recall(chosen) for name, chosen in groups.items()}
    recall = tuple(lvis_ap.RECALLS.tolist())
    lines = tuple(Curve(name, recall, tuple(values.tolist())) for name, values in levels.items() if values is not None)
    return Chart(title, "recall", "precision", lines)
