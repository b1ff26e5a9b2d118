"""From what a session kept to the story of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.comparison import Compared
from benchmarks.report.examples import Reading, Section, section
from benchmarks.report.page import Story
from benchmarks.report.training import training_charts
from benchmarks.rows import Row
from benchmarks.runner import Kept, Session


def story(session: Session, exports: Mapping[str, Path], rows: Sequence[Row], compared: Sequence[Compared]) -> Story:
    """What a page tells about a session.

    Args:
        session: after its run.
        exports: folder of each model by its label.
        rows: figures that stand alone.
        compared: figures of A beside B.
    """
    charts = [*training_charts(exports), *(chart for kept in session.kept for chart in kept.charts)]
    return Story(tuple(side.label for side in session.sides), rows, compared, charts, sections(session))


def sections(session: Session) -> list[Section]:
    """One section a task and split: the best reading of each side."""
    made = []
    for title in dict.fromkeys(kept.title for kept in session.kept if kept.gallery is not None):
        sides = []
        for side in range(len(session.sides)):
            there = [k for k in session.kept if (k.title, k.side) == (title, side) and k.gallery is not None]
            there = [kept for kept in there if len(kept.gallery.keys)]
            if there:
                best = max(there, key=lambda kept: kept.gallery.right.mean())
                sides.append(Reading(f"{session.sides[side].label} ({best.predictor.name})", best.gallery, _maps(best)))
        if sides:
            made.append(section(title, sides))
    return [one for one in made if one.figures]


def _maps(kept: Kept):
    """The predictor, where it can embed boxes."""
    return kept.predictor if hasattr(kept.predictor, "encode_regions") else None
