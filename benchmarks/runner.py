"""One run: every task on every data set that is there, with every reading of every model; scores become rows."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Chart, Gallery
from benchmarks.metrics.intervals import Resampled, interval
from benchmarks.predictors.cached_predictor import Taped
from benchmarks.predictors.contract import Predictor
from benchmarks.provenance import Provenance, tokenizer_sha256
from benchmarks.rows import Row
from benchmarks.tasks.contract import Measured, Options, Score, Task
from cloc import comm

NO_MODEL = "none"
PROGRESS = "progress"
KEPT = {
    "box_cut_at_border": "",
    "box_beyond_its_image": "boxes (about) end outside their image or have no area: are some in another frame?",
    "box_of_smaller_picture": "boxes all lie in the upper left of their images: are they of smaller copies?",
    "file_name_again": "images name a photo that another image names too",
}
"""Readers count these too, but what they count stays in; what is said of them, nothing of the first."""


@dataclass(frozen=True)
class Side:
    """One of the models of a run and its readings.

    Attributes:
        label: name of the model, as in `Row.model`.
        sha256: of its weights.
        predictors: its readings; none where no model was given.
        folder: of the export or run, for its training curves.
        told: what it is, in a few words.
    """

    label: str
    sha256: str | None
    predictors: Sequence[Predictor]
    folder: Path | None = None
    told: str = ""


@dataclass(frozen=True)
class Result:
    """A row, and the sums behind it that a comparison needs.

    Attributes:
        row: the row.
        tally: None where the row is no mean over examples.
        side: index of the model in the run.
    """

    row: Row
    tally: Resampled | None
    side: int

    @property
    def key(self) -> tuple[str, ...]:
        """What two rows share when they measure the same thing."""
        row = self.row
        return row.task, row.dataset, str(row.data), row.split, row.protocol, row.metric


@dataclass(frozen=True, eq=False)
class Kept:
    """What the report needs of one task on one data set with one predictor.

    Attributes:
        title: task, data set and split.
        side: index of the model in the run.
        predictor: its reading; None where no model was needed.
        gallery, charts: as in `Measured`.
    """

    title: str
    side: int
    predictor: Predictor | None
    gallery: Gallery | None
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Session:
    """What stays the same for a run.

    Attributes:
        roots: where data is looked for, real first.
        sides: the model, and the one it is compared with if there is one.
        provenance: for the rows.
        options: for the tasks.
        folder: where predictions go.
        batch_size: images a chunk of work.
        kept: filled by the run, for the report.
    """

    roots: Sequence[Path]
    sides: Sequence[Side]
    provenance: Provenance
    options: Options
    folder: Path
    batch_size: int = 64
    kept: list[Kept] = field(default_factory=list)

    def run(self, tasks: Sequence[Task]) -> list[Result]:
        """Check every metric on made-up rows first, then measure."""
        for task in tasks:
            task.self_check()
        return [result for task in tasks for result in self._task(task)]

    def _task(self, task: Task) -> list[Result]:
        found = task.find(self.roots)
        if not found:
            places = ", ".join(str(place) for place in task.places(self.roots))
            return [self._nothing(task, f"no data found; looked for {places}; needs {task.needs}")]
        results: list[Result] = []
        for one in found:
            results += self._dataset(task, one)
        for side in range(len(self.sides)):
            rows = [result.row for result in results if result.side == side]
            results += [Result(row, None, side) for row in task.averages(rows)]
        return results

    def _dataset(self, task: Task, found: FoundSet) -> list[Result]:
        if not found.needs_model:
            return self._measure(task, found, found.load(), Side(NO_MODEL, None, ()), None, 0)
        able = any(kind_of(predictor) in task.kinds for side in self.sides for predictor in side.predictors)
        dataset = found.load() if able else None  # nobody would look at it
        results: list[Result] = []
        for index, side in enumerate(self.sides):
            if not side.predictors:
                results.append(self._nothing(task, "no model was given and no finished export was found"))
            for predictor in side.predictors:
                if kind_of(predictor) in task.kinds:
                    results += self._measure(task, found, dataset, side, predictor, index)
                else:
                    results.append(self._unable(task, found, side, predictor, index))
        return results

    def _measure(
        self, task: Task, found: FoundSet, dataset: Any, side: Side, predictor: Predictor | None, index: int
    ) -> list[Result]:
        name = NO_MODEL if predictor is None else predictor.name
        start, speed, texts = time.perf_counter(), None, None
        if task.timed:  # asked of the predictor itself, by the main process alone
            measured = task.run(predictor, dataset, found, self.options) if comm.is_main() else Measured("", False, [])
        else:
            unit = "-".join((task.name, found.dataset, found.split.split()[0], str(index), name))
            taped = Taped(predictor, self.folder / PROGRESS / unit, self.batch_size)
            measured = task.run(taped, dataset, found, self.options)
            speed, texts = taped.images_per_second, taped.texts_sha256
        seconds = time.perf_counter() - start
        if measured.predictions and comm.is_main():
            parts = (task.name, measured.dataset, found.split, side.label, name)
            self._write_predictions("-".join(dict.fromkeys(parts)), index, measured)
        title = f"{task.name} on {measured.dataset}, {found.split}"
        self.kept.append(Kept(title, index, predictor, measured.gallery, measured.charts))
        return [
            Result(self._row(task.name, measured, score, side, name, seconds, speed, texts), score.tally, index)
            for score in measured.scores
        ]

    def _row(
        self,
        task: str,
        measured: Measured,
        score: Score,
        side: Side,
        predictor: str,
        seconds: float,
        speed: float | None = None,
        texts: str | None = None,
    ) -> Row:
        tally, seed = score.tally, self.provenance.seed
        skipped = Counter({k: v for k, v in score.skipped.items() if v and k not in KEPT})
        told = "skipped: " + "; ".join(f"{count:,} {why}" for why, count in sorted(skipped.items())) if skipped else ""
        noted = [f"{score.skipped[why]:,} {said}" for why, said in KEPT.items() if said and score.skipped.get(why)]
        return Row(
            task=task,
            dataset=measured.dataset,
            data="rendered" if measured.rendered else "real",
            split=score.split,
            protocol=score.protocol,
            metric=score.metric,
            value=score.value if tally is None else tally.value(),
            num_examples=score.num_examples if tally is None else tally.num_examples,
            num_skipped=skipped.total(),
            ci95=None if tally is None else interval(tally, seed),
            chance=score.chance,
            constant=score.constant,
            model=side.label,
            predictor=predictor,
            model_sha256=side.sha256,
            commit=self.provenance.commit,
            versions=self.provenance.versions,
            machine=self.provenance.machine,
            seed=seed,
            seconds=round(seconds, 3),
            reason="; ".join(part for part in (score.reason, told, *noted) if part) or None,
            images_per_second=None if speed is None else round(speed, 3),
            texts_sha256=texts,
            tokenizer_sha256=tokenizer_sha256(side.folder),
            no_constant=score.no_constant,
        )

    def _unable(self, task: Task, found: FoundSet, side: Side, predictor: Predictor, index: int) -> Result:
        who, whom = an(kind_of(predictor)), " or ".join(an(one) for one in task.kinds)
        reason = f"{side.label}: {who} cannot do this; it takes {whom}"
        blank, score = Measured(found.dataset, False, []), Score(found.split, "none", "none", reason=reason)
        row = self._row(task.name, blank, score, side, predictor.name, 0.0)
        return Result(replace(row, data=None), None, index)

    def _nothing(self, task: Task, reason: str) -> Result:
        blank = Measured(task.name, False, [])
        side = self.sides[0]
        row = self._row(task.name, blank, Score("none", "none", "none", reason=reason), side, NO_MODEL, 0.0)
        return Result(replace(row, data=None), None, 0)

    def _write_predictions(self, name: str, index: int, measured: Measured) -> None:
        folder = self.folder / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        suffix = f"-{index + 1}" if len({side.label for side in self.sides}) < len(self.sides) else ""
        before, between, after, kind = ("[", ",\n", "]\n", "json") if measured.as_list else ("", "\n", "\n", "jsonl")
        with (folder / f"{name}{suffix}.{kind}").open("w", encoding="utf-8") as file:
            file.write(before)
            for place, line in enumerate(measured.predictions):
                file.write((between if place else "") + json.dumps(line, allow_nan=False))
            file.write(after)


def kind_of(predictor: Predictor) -> str:
    """What a predictor is, as `Task.kinds` says it: an encoder where it says nothing."""
    return getattr(predictor, "kind", "encoder")


def an(kind: str) -> str:
    """The kind of predictor with its article."""
    return f"{'a' if kind == 'detector' else 'an'} {kind}"
