"""`--predictions FILE --annotations FILE`: recognise the kind of file and score it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.examples import Chart
from benchmarks.metrics import coco_ap, lvis_ap
from benchmarks.metrics.ap_resamples import make_ap_tallies
from benchmarks.metrics.detection import EMPTY
from benchmarks.metrics.grounding import answer_iou, score_constants, score_hits, summarize_constants
from benchmarks.metrics.intervals import Interval, Tally, find_interval
from benchmarks.metrics.proposals import NO_CHANCE, make_constant_detections
from benchmarks.provenance import describe_checkout, describe_processor, hash_file, list_versions
from benchmarks.report.charts import group_by_frequency, make_precision_chart
from benchmarks.rows import Row
from benchmarks.scoring.detections import is_lvis, read_detections, read_truth
from benchmarks.scoring.expressions import find_refer_folder, read_grounding, read_refer_lines
from benchmarks.scoring.official import score_officially
from benchmarks.scoring.reading import count_repeated, list_entries, read_any, read_parts
from benchmarks.scoring.words import FERRET, find_kind, score_words
from benchmarks.tasks.contract import Score

GROUNDING, PLUS_ONE = "phrase-box/xyxy", "phrase-box/xyxy-plus-one"
PROTOCOLS = {"lvis": lvis_ap.PROTOCOLS, "coco": coco_ap.PROTOCOLS, "grounding": (GROUNDING, PLUS_ONE)}
DETECTION_PROTOCOLS = (*lvis_ap.PROTOCOLS, *coco_ap.PROTOCOLS)
SEED = 0
TWICE = "annotated boxes that stand there twice, number for number"


@dataclass(frozen=True)
class ScoringRequest:
    """What the command line asked for.

    Attributes:
        predictions: a COCO results file, or grounding answers as JSON lines.
        annotations: a COCO, LVIS or grounding annotation file.
        protocols: detection protocols; none for all that fit the annotation file.
        fixed_k: detections a category over the set for `lvis-fixed-ap`; None for its default.
        plus_one: the pixel convention of grounding boxes.
        official: LVIS is scored by the `lvis` package instead of ours.
        split: of a folder in the refer toolkit's layout.
        judge: who wrote the reviews of Ferret-Bench.
        intervals: AP gets its 95 % interval, which takes longer than AP itself.
    """

    predictions: Path
    annotations: Path
    protocols: Sequence[str] = ()
    fixed_k: int | None = None
    plus_one: bool = False
    official: bool = False
    split: str | None = None
    judge: str | None = None
    intervals: bool = False


@dataclass(frozen=True)
class _Scored:
    """All scores of a file, what is the same for them, and curves for the report."""

    task: str
    rendered: bool
    num_examples: int
    skipped: Counter[str]
    notes: Counter[str]
    scores: list[Score]
    charts: list[Chart] = field(default_factory=list)


def score_files(asked: ScoringRequest) -> list[Row]:
    """The rows of `score_with_charts`."""
    return score_with_charts(asked)[0]


def score_with_charts(asked: ScoringRequest) -> tuple[list[Row], list[Chart]]:
    """Score a file of predictions; what the annotation file holds says how. For LVIS also precision over recall.

    Raises:
        ValueError: a file is missing, of no known layout or wrong, or an option does not fit the annotation file.
    """
    start = time.perf_counter()
    folder = find_refer_folder(asked.annotations)
    annotations = (
        read_any(asked.annotations, "--annotations") if folder is None else read_refer_lines(folder, asked.split)
    )
    kind = _kind(annotations, asked.annotations)
    _check_options(asked, kind)
    read = read_parts if kind in ("lvis", "coco") else read_any
    predictions = read(asked.predictions, "--predictions")
    how = {"grounding": _grounding, "lvis": _detection, "coco": _detection}.get(kind, _words)
    scored = how(annotations, predictions, asked, kind)
    seconds = round(time.perf_counter() - start, 3)
    told = _describe_counts("skipped", scored.skipped) + _describe_counts("noted", scored.notes)
    shared: dict[str, Any] = {
        "commit": describe_checkout(),
        "versions": list_versions(),
        "machine": describe_processor(),
    }
    sha256 = hash_file(asked.predictions)
    rows = [
        Row(
            task=scored.task,
            dataset=("scenes-" if scored.rendered else "") + (asked.annotations if folder is None else folder).stem,
            data="rendered" if scored.rendered else "real",
            split=score.split,
            protocol=score.protocol,
            metric=score.metric,
            value=score.value,
            num_examples=scored.num_examples,
            num_skipped=scored.skipped.total(),
            ci95=score.ci95,
            chance=score.chance,
            constant=score.constant,
            no_constant=score.no_constant,
            model=asked.predictions.stem,
            predictor="predictions, lvis package" if asked.official else "predictions",
            model_sha256=sha256,
            **shared,
            seed=SEED,
            seconds=seconds,
            reason="; ".join([*([] if score.value is not None else ["no annotation is of this kind"]), *told]) or None,
        )
        for score in scored.scores
    ]
    return rows, scored.charts


def _kind(content: Any, path: Path) -> str:
    if isinstance(content, dict) and all(isinstance(content.get(n), list) for n in ("images", "categories")):
        if not isinstance(content.get("annotations"), list):
            raise ValueError(f"--annotations: expected the list annotations in {path}, found none")
        if not all(isinstance(one, dict) for name in ("images", "categories") for one in content[name]):
            raise ValueError(f"--annotations: expected objects in images and categories of {path}")
        return "lvis" if is_lvis(content) else "coco"
    first = content[0] if isinstance(content, list) and content else content
    if isinstance(first, dict) and "sent_id" in first and "bbox" in first:
        return "grounding"
    if isinstance(first, dict) and (found := find_kind(first)) is not None:
        return found
    raise ValueError(
        f"--annotations: no known layout in {path}; expected COCO's or LVIS's JSON (images, annotations, categories) "
        "JSON lines with image_id, sent_id and bbox (xyxy), a folder with refs(*).p, or questions of POPE, Ref-LVIS or "
        "Ferret-Bench"
    )


def _check_options(asked: ScoringRequest, kind: str) -> None:
    wrong = [name for name in asked.protocols if name not in PROTOCOLS.get(kind, ())]
    if wrong:
        fits = ", ".join(PROTOCOLS[kind]) if kind in ("lvis", "coco") else "none"
        raise ValueError(f"--protocol {wrong[0]}: does not fit {asked.annotations} ({kind}); fitting: {fits}")
    if asked.fixed_k is not None and (kind != "lvis" or (asked.protocols and lvis_ap.FIXED not in asked.protocols)):
        raise ValueError(f"--fixed-ap-k: belongs to {lvis_ap.FIXED} on an LVIS annotation file, which is not asked for")
    if asked.official and kind != "lvis":
        raise ValueError(f"--evaluator official: belongs to LVIS ({kind} is scored by official code as it is)")
    if asked.intervals and (asked.official or kind not in ("lvis", "coco")):
        whose = "the lvis package gives none" if asked.official else f"{kind} answers have theirs anyway"
        raise ValueError(f"--intervals: belongs to AP by our evaluator or pycocotools; {whose}")
    if asked.judge and kind != FERRET:
        raise ValueError(f"--judge: belongs to reviews of Ferret-Bench; {asked.annotations} is a {kind} file")
    if asked.split and find_refer_folder(asked.annotations) is None:
        raise ValueError("--split: belongs to a folder with refs(*).p; a file holds its own split")
    if asked.plus_one and kind != "grounding":
        raise ValueError(f"--plus-one: belongs to grounding; {asked.annotations} is a {kind} annotation file")


def _detection(annotations: Any, predictions: Any, asked: ScoringRequest, kind: str) -> _Scored:
    truth = read_truth(annotations)
    detections, skipped, notes = read_detections(predictions, truth)
    twice = count_repeated(truth.images, truth.categories, truth.boxes_xywh)
    fixed_k = lvis_ap.FIXED_K if asked.fixed_k is None else asked.fixed_k
    scores, charts = list[Score](), list[Chart]()
    judge = lvis_ap.LvisJudge(truth, detections) if kind == "lvis" and not asked.official else None
    blind = make_constant_detections(truth)
    constant_judge = lvis_ap.LvisJudge(truth, blind) if kind == "lvis" else None
    every = np.ones(len(truth.category_ids), dtype=bool)
    for protocol in dict.fromkeys(asked.protocols or PROTOCOLS[kind]):
        spreads: dict[str, Interval | None] = {}
        if asked.official:
            values = score_officially(asked.annotations, truth, detections, protocol, fixed_k)
        else:
            curves = coco_ap.CocoCurves(truth, detections) if judge is None else judge.curves(protocol, fixed_k)
            values = curves.figures(every)
            if asked.intervals:
                tallies = make_ap_tallies(values, curves.resamples(), every, truth.frequencies)
                spreads = {metric: find_interval(tally, SEED) for metric, tally in tallies.items()}
            if isinstance(curves, lvis_ap.LvisCurves):
                groups = {"all": every, **group_by_frequency(truth.frequencies)}
                charts.append(make_precision_chart(f"{protocol}: precision over recall, IoU 0.5", curves, groups))
        named = f"{protocol}-k{fixed_k}" if protocol == lvis_ap.FIXED and fixed_k != lvis_ap.FIXED_K else protocol
        if constant_judge is None:
            always: coco_ap.CocoCurves | lvis_ap.LvisCurves = coco_ap.CocoCurves(truth, blind)
        else:
            always = constant_judge.curves(protocol, fixed_k)
        constants = always.figures(every)
        scores += [
            Score(
                "all",
                named,
                metric,
                value=value,
                ci95=spreads.get(metric),
                constant=constants.get(metric),
                no_constant=NO_CHANCE,
            )
            for metric, value in values.items()
        ]
    silent = len(truth.image_ids) - len(set(detections.images.tolist()))
    info = annotations.get("info")
    return _Scored(
        task=kind,
        rendered=isinstance(info, dict) and info.get("rendered") is True,
        num_examples=len(truth.image_ids),
        skipped=skipped,
        notes=Counter(
            {f"of {len(truth.image_ids):,} images without a prediction": silent, EMPTY: truth.num_empty, TWICE: twice}
        )
        + notes,
        scores=scores,
        charts=charts[:1],
    )


def _grounding(annotations: Any, predictions: Any, asked: ScoringRequest, kind: str) -> _Scored:
    read = read_grounding(annotations, predictions)
    ious = answer_iou(read.answers_xyxy, read.references_xyxy, asked.plus_one)
    values = {"acc@0.5": (ious >= 0.5) * 1.0, "acc@0.75": (ious >= 0.75) * 1.0, "mean_iou": ious}
    tallies = {metric: Tally.of(read.image_ids, each) for metric, each in values.items()}
    protocol = PLUS_ONE if asked.plus_one else GROUNDING
    ious_of = {"acc@0.5": partial(score_hits, threshold=0.5), "acc@0.75": partial(score_hits, threshold=0.75)}
    extents = None if read.sizes is None else np.concatenate([np.zeros_like(read.sizes), read.sizes], axis=1)
    always = score_constants(read.references_xyxy, extents)
    blind = {metric: summarize_constants(ious_of.get(metric, np.asarray)(always), read.image_ids) for metric in values}
    return _Scored(
        task=kind,
        rendered=read.rendered,
        num_examples=len(ious),
        skipped=read.skipped,
        notes=Counter({why: n for why, n in read.notes.items() if not (asked.plus_one and why == EMPTY)}),
        scores=[
            Score(
                read.split,
                protocol,
                metric,
                value=float(values[metric].mean()),
                ci95=find_interval(tally, SEED),
                chance=blind[metric].drawn,
                constant=blind[metric].best,
                no_constant=blind[metric].why_none,
            )
            for metric, tally in tallies.items()
        ],
    )


def _words(annotations: Any, predictions: Any, asked: ScoringRequest, kind: str) -> _Scored:
    answers = list_entries(predictions, "predictions") if predictions else []
    found = score_words(kind, list_entries(annotations, "annotations"), answers, asked.judge)
    means = [
        Score("all", found.protocol, name, value=tally.value(), ci95=find_interval(tally, SEED), **found.blind[name])
        for name, tally in found.tallies.items()
    ]
    return _Scored(
        task=kind,
        rendered=False,
        num_examples=found.count,
        skipped=found.skipped,
        notes=found.notes,
        scores=[
            *means,
            *(
                Score("all", found.protocol, name, value=value, **found.blind[name])
                for name, value in found.values.items()
            ),
        ],
    )


def _describe_counts(word: str, counts: Counter[str]) -> list[str]:
    parts = [f"{count:,} {why}" for why, count in sorted(counts.items()) if count]
    return [f"{word}: {'; '.join(parts)}"] if parts else []
