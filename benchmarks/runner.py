"""One run: every task on every data set that is there, with every readout of every model; scores become rows."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Chart, ExampleSet
from benchmarks.metrics.intervals import find_interval
from benchmarks.out_folder import PROGRESS
from benchmarks.predictors.cached_predictor import CachedPredictor
from benchmarks.predictors.contract import NO_MODEL, NOTHING_LOADED, LoadedModel, Predictor
from benchmarks.provenance import Provenance, hash_tokenizer
from benchmarks.rows import Row, ScoredRow
from benchmarks.speed.measurements import Part, SpeedMeasurement
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput
from cloc import comm

KEPT = {
    "box_cut_at_border": "",
    "box_beyond_its_image": "boxes (about) end outside their image or have no area: are some in another frame?",
    "box_of_smaller_picture": "boxes all lie in the upper left of their images: are they of smaller copies?",
    "file_name_again": "images name a photo that another image names too",
}
"""Readers count these too, but what they count stays in; what is said of them, nothing of the first."""


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What the report needs of one task on one data set with one predictor.

    Attributes:
        title: task, data set and split.
        model_index: of the model in the run.
        predictor: its readout.
        examples, charts: as in `TaskOutput`.
    """

    title: str
    model_index: int
    predictor: Predictor
    examples: ExampleSet | None
    charts: Sequence[Chart]


@dataclass(frozen=True)
class TaskRunner:
    """What stays the same for a run.

    Attributes:
        roots: where data is looked for, real first.
        models: the model, and the one it is compared with if there is one.
        provenance: for the rows.
        options: for the tasks.
        folder: where predictions and, while it lasts, answers go; None writes neither.
        batch_size: images a chunk of work.
        report_inputs: filled by the run, for the report.
    """

    roots: Sequence[Path]
    models: Sequence[LoadedModel]
    provenance: Provenance
    options: Options
    folder: Path | None
    batch_size: int = 64
    report_inputs: list[ReportInput] = field(default_factory=list)

    def run(self, tasks: Sequence[Task | SpeedMeasurement]) -> list[ScoredRow]:
        """Check every metric on made-up rows first, then measure."""
        for task in tasks:
            task.self_check()
        scored: list[ScoredRow] = []
        for task in tasks:
            scored += self._run_speed(task) if isinstance(task, SpeedMeasurement) else self._run_task(task)
        return scored

    def _run_task(self, task: Task) -> list[ScoredRow]:
        found = task.find(self.roots)
        if not found:
            locations = ", ".join(str(path) for path in task.list_locations(self.roots))
            return [self._nothing(task.name, f"no data found; looked for {locations}; needs {task.needs}")]
        scored = [row for one in found for row in self._run_dataset(task, one)]
        for index in range(len(self.models)):
            rows = [one.row for one in scored if one.model_index == index]
            scored += [ScoredRow(row, None, index) for row in task.averages(rows)]
        return scored

    def _run_dataset(self, task: Task, found: FoundSet) -> list[ScoredRow]:
        able = any(find_kind(predictor) in task.kinds for model in self.models for predictor in model.predictors)
        dataset = found.load() if able else None  # nobody would look at it
        scored: list[ScoredRow] = []
        for index, model in enumerate(self.models):
            if not model.predictors:
                scored.append(self._nothing(task.name, "no model was given and no finished export was found"))
            for predictor in model.predictors:
                if find_kind(predictor) in task.kinds:
                    scored += self._score(task, found, dataset, predictor, index)
                else:
                    scored.append(self._unable(task.name, task.kinds, found.dataset, found.split, predictor, index))
        return scored

    def _score(self, task: Task, found: FoundSet, dataset: Any, predictor: Predictor, index: int) -> list[ScoredRow]:
        model, start = self.models[index], time.perf_counter()
        unit = "-".join((task.name, found.dataset, found.split.split()[0], str(index), predictor.name))
        folder = None if self.folder is None else self.folder / PROGRESS / unit
        cached = CachedPredictor(predictor, folder, self.batch_size)
        output = task.run(cached, dataset, found, self.options)
        seconds = time.perf_counter() - start
        if output.predictions and self.folder is not None and comm.is_main():
            parts = (task.name, output.dataset, found.split, model.label, predictor.name)
            self._write_predictions(self.folder / "predictions", "-".join(dict.fromkeys(parts)), index, output)
        title = f"{task.name} on {output.dataset}, {found.split}"
        self.report_inputs.append(ReportInput(title, index, predictor, output.examples, output.charts))
        speed, texts = cached.images_per_second, cached.texts_sha256
        rows = [
            self._row(task.name, output, score, model, predictor.name, seconds, speed, texts) for score in output.scores
        ]
        return [ScoredRow(row, score.tally, index) for row, score in zip(rows, output.scores, strict=True)]

    def _run_speed(self, measurement: SpeedMeasurement) -> list[ScoredRow]:
        """Costs are measured by the main process alone; what does not depend on the model is measured once."""
        scored: list[ScoredRow] = []
        for part in measurement.parts:
            if not part.needs_model:
                scored += self._measure(measurement.name, part, NOTHING_LOADED, None, 0)
                continue
            for index, model in enumerate(self.models):
                if not model.predictors:
                    scored.append(
                        self._nothing(measurement.name, "no model was given and no finished export was found")
                    )
                for predictor in model.predictors:
                    if find_kind(predictor) == "encoder":
                        scored += self._measure(measurement.name, part, model, predictor, index)
                    else:
                        names = measurement.name, ("encoder",), part.name, part.split
                        scored.append(self._unable(*names, predictor, index))
        return scored

    def _measure(
        self, name: str, part: Part, model: LoadedModel, predictor: Predictor | None, index: int
    ) -> list[ScoredRow]:
        start = time.perf_counter()
        scores = part.measure(predictor, part.split, self.options.limit) if comm.is_main() else []
        seconds, output = time.perf_counter() - start, TaskOutput(part.dataset, True, scores)
        read_by = NO_MODEL if predictor is None else predictor.name
        return [ScoredRow(self._row(name, output, score, model, read_by, seconds), None, index) for score in scores]

    def _row(
        self,
        task: str,
        output: TaskOutput,
        score: Score,
        model: LoadedModel,
        predictor: str,
        seconds: float,
        speed: float | None = None,
        texts: str | None = None,
    ) -> Row:
        tally, seed = score.tally, self.provenance.seed
        skipped = Counter({k: v for k, v in score.skipped.items() if v and k not in KEPT})
        counts = "; ".join(f"{count:,} {why}" for why, count in sorted(skipped.items()))
        noted = [f"{score.skipped[why]:,} {note}" for why, note in KEPT.items() if note and score.skipped.get(why)]
        reasons = (score.reason, f"skipped: {counts}" if counts else "", *noted)
        return Row(
            task=task,
            dataset=output.dataset,
            data="rendered" if output.rendered else "real",
            split=score.split,
            protocol=score.protocol,
            metric=score.metric,
            value=score.value if tally is None else tally.value(),
            num_examples=score.num_examples if tally is None else tally.num_examples,
            num_skipped=skipped.total(),
            ci95=score.ci95 if tally is None else find_interval(tally, seed),
            chance=score.chance,
            constant=score.constant,
            model=model.label,
            predictor=predictor,
            model_sha256=model.sha256,
            commit=self.provenance.commit,
            versions=self.provenance.versions,
            machine=self.provenance.machine,
            seed=seed,
            seconds=round(seconds, 3),
            reason="; ".join(part for part in reasons if part) or None,
            images_per_second=None if speed is None else round(speed, 3),
            texts_sha256=texts,
            tokenizer_sha256=hash_tokenizer(model.folder),
            no_constant=score.no_constant,
        )

    def _without_data(self, task: str, dataset: str, score: Score, predictor: str, index: int) -> ScoredRow:
        row = self._row(task, TaskOutput(dataset, False, []), score, self.models[index], predictor, 0.0)
        return ScoredRow(replace(row, data=None), None, index)

    def _unable(
        self, task: str, kinds: Sequence[str], dataset: str, split: str, predictor: Predictor, index: int
    ) -> ScoredRow:
        who, whom = add_article(find_kind(predictor)), " or ".join(add_article(kind) for kind in kinds)
        reason = f"{self.models[index].label}: {who} cannot do this; it takes {whom}"
        return self._without_data(task, dataset, Score(split, "none", "none", reason=reason), predictor.name, index)

    def _nothing(self, task: str, reason: str) -> ScoredRow:
        return self._without_data(task, task, Score("none", "none", "none", reason=reason), NO_MODEL, 0)

    def _write_predictions(self, folder: Path, name: str, index: int, output: TaskOutput) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        suffix = f"-{index + 1}" if len({model.label for model in self.models}) < len(self.models) else ""
        before, between, after, kind = ("[", ",\n", "]\n", "json") if output.as_list else ("", "\n", "\n", "jsonl")
        with (folder / f"{name}{suffix}.{kind}").open("w", encoding="utf-8") as file:
            file.write(before)
            for number, line in enumerate(output.predictions):
                file.write((between if number else "") + json.dumps(line, allow_nan=False))
            file.write(after)


def find_kind(predictor: Predictor) -> str:
    """What a predictor is, as `Task.kinds` says it: an encoder where it says nothing."""
    return getattr(predictor, "kind", "encoder")


def add_article(kind: str) -> str:
    """The kind of predictor with its article."""
    return f"{'a' if kind == 'detector' else 'an'} {kind}"
