"""The table of a closed loop: what the labels are worth, and what CLOC made of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.experiments.closed_loop.loop import CLIP, PSEUDO, READINGS, SPLITS, TRUE, Loop
from benchmarks.experiments.record import Record
from benchmarks.experiments.table import NO_RUN, RENDERED

HEAD = (
    "labels",
    "precision",
    "recall, named objects",
    "recall, all objects",
    "class mean, boxed",
    "class mean, caption-only",
)


def write_page(loop: Loop, shares: dict[str, Any], detector: Record, cloc: Record, clip: Record) -> str:
    """The whole page.

    Args:
        loop: what was run.
        shares: of `Quality.to_json`: precision and recall at IoU 0.5, by group.
        detector: its plan's runs.
        cloc: the runs on true and on pseudo-labels.
        clip: the runs of CLIP alone.
    """
    made = shares["all"]
    quality = [made["precision"], made["recall_named"], made["recall"]]
    rows = [
        ["CLOC, true labels", *[None] * 3, *(find_value(cloc, TRUE, split, ["prompter"]) for split in SPLITS)],
        ["CLOC, pseudo-labels", *quality, *(find_value(cloc, PSEUDO, split, ["prompter"]) for split in SPLITS)],
        ["CLIP alone", *[None] * 3, *(find_value(clip, CLIP, split, READINGS) for split in SPLITS)],
    ]
    scale = "" if cloc.scale == 1 else f" **Scale {cloc.scale:g}: a trial run, its figures mean nothing.**"
    seeds = ", ".join(map(str, loop.seeds))
    return "\n".join(
        [
            f"# Closed loop `{loop.name}`",
            "",
            "A detector trained here labelled the images that CLOC trained on; no outside model. Precision and "
            f"recall of its boxes at IoU 0.5; CLIP alone is read in {len(READINGS)} ways, the best counts. Seeds "
            f"{seeds}, mean.{scale} {RENDERED}",
            "",
            format_table(HEAD, rows),
            "",
            "The labels by group of categories:",
            "",
            format_table(
                (
                    "group",
                    "precision",
                    "recall, named objects",
                    "recall, all objects",
                    "AP of the detector, held-out scenes",
                ),
                [
                    [
                        name,
                        shares[name]["precision"],
                        shares[name]["recall_named"],
                        shares[name]["recall"],
                        find_value(detector, "detector", name, [""]),
                    ]
                    for name in SPLITS
                ],
            ),
            "",
        ]
    )


def find_value(record: Record, arm: str, split: str, predictors: Sequence[str]) -> float | None:
    """Mean over seeds; of several readings the one with the best mean. None where nothing is there."""
    means = []
    for predictor in predictors:
        found = record.values(arm, f"{split}-{predictor}" if predictor else split)
        means += [fmean(found.values())] if found else []
    return max(means, default=None)


def format_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [NO_RUN if cell is None else cell if isinstance(cell, str) else f"{cell:.3f}" for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
