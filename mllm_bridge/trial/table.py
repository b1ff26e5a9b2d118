"""The trial's table: mean and spread of each arm, what guessing gets, and what may be said of the paper's claim."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from cloc.boxes import iou
from mllm_bridge.conversations.reading import Conversation

CLAIMS = (
    ("referring", "cloc", "clip", "CLOC above CLIP at referring"),
    ("grounding", "cloc", "clip", "CLOC above CLIP at grounding"),
    ("referring", "cloc_regions", "cloc", "region tokens above coordinates at referring"),
)
"""Fixed before the runs: kind, the arm that should be better, the arm that it is compared with, in words."""


def guess_names(questions: Sequence[Conversation]) -> float:
    """Referring accuracy of naming, at random, one of the objects that the picture shows.

    Args:
        questions: referring, all of each picture: every object of it is asked about once.
    """
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        names[str(question.images[0])][question.turns[1].text.lower()] += 1
    right = [n * n / count.total() for count in names.values() for n in count.values()]
    return sum(right) / len(questions)


def guess_boxes(questions: Sequence[Conversation]) -> float:
    """Grounding acc@0.5 of answering with the box of another question, drawn at random.

    Args:
        questions: grounding, with their box (xyxy pixels, pictures of one size).
    """
    boxes = np.array([question.extras["box"] for question in questions], dtype=float)
    hits = iou(boxes, boxes) >= 0.5
    others = len(boxes) * (len(boxes) - 1)
    return float((hits.sum() - len(boxes)) / others) if others else 0.0


def judge_claim(better: Sequence[float], worse: Sequence[float]) -> tuple[str, float, tuple[float, float] | None]:
    """Whether paired runs (same seeds) show a difference.

    Returns:
        `shown`, `refuted` or `not distinguishable`; the mean difference; its 95 % interval (Student's t over the
        seeds), None with fewer than two.
    """
    difference = np.asarray(better) - np.asarray(worse)
    mean = float(difference.mean())
    if len(difference) < 2:
        return "not distinguishable", mean, None
    spread = float(difference.std(ddof=1) / len(difference) ** 0.5)
    half = float(stats.t.ppf(0.975, len(difference) - 1)) * spread
    low, high = mean - half, mean + half
    return ("shown" if low > 0 else "refuted" if high < 0 else "not distinguishable"), mean, (low, high)


def make_table(rows: Sequence[Mapping[str, Any]], guesses: Mapping[str, float] | None = None) -> str:
    """Markdown of all runs.

    Args:
        rows: one for each run: arm, seed, referring, grounding, seconds.
        guesses: what answers that do not look get, by kind; None leaves the line out.
    """
    lines = ["| arm | seeds | referring accuracy | grounding acc@0.5 | seconds a run |", "|---|---|---|---|---|"]
    if guesses is not None:
        lines.append(f"| guessing | - | {guesses['referring']:.3f} | {guesses['grounding']:.3f} | - |")
    values: dict[tuple[str, str], dict[int, float]] = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        cells = []
        for kind in ("referring", "grounding"):
            values[kind, arm] = {row["seed"]: row[kind] for row in own}
            found = np.array(list(values[kind, arm].values()))
            spread = f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else ""
            cells.append(f"{found.mean():.3f}{spread}")
        seconds = np.mean([row["seconds"] for row in own])
        lines.append(f"| {arm} | {len(own)} | {cells[0]} | {cells[1]} | {seconds:.0f} |")
    lines.append("")
    for kind, better, worse, words in CLAIMS:
        seeds = sorted(values.get((kind, better), {}).keys() & values.get((kind, worse), {}).keys())
        if seeds:
            pair = [[values[kind, arm][seed] for seed in seeds] for arm in (better, worse)]
            finding, mean, interval = judge_claim(*pair)
            span = "" if interval is None else f", 95 % {interval[0]:+.3f} to {interval[1]:+.3f}"
            lines.append(f"- {words}: {finding} (difference {mean:+.3f}{span}, {len(seeds)} paired seeds)")
    if guesses is not None:
        lines.append("- guessing: the name of any object of the picture; the box of another question")
    return "\n".join(lines) + "\n"
