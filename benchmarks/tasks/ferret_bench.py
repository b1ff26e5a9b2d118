"""`ferret_bench`: referring description and reasoning, grounding in conversation; an MLLM answers, a judge scores.

Layout: `region_text/ferret_bench/{refer_caption,refer_reason,ground_conv}_{question,answer,context}.jsonl`, JSON lines
of `question_id`, `image`, `category`, `text` (ferret/eval/ferret_gpt4_data of github.com/apple/ml-ferret). The run
writes answers, each with everything that a judge needs to see; the judge is whoever one names, and its reviews are
scored with `--predictions REVIEWS --annotations QUESTIONS --judge NAME`, the name being part of the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.metrics.answers import score_relative
from benchmarks.predictors.mllm import MllmPredictor
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, expect, name_dataset
from benchmarks.tasks.photos import open_batches, open_sized
from cloc.formats.rows import read_lines
from cloc.formats.sources import PhotoFolders

PARTS = ("refer_caption", "refer_reason", "ground_conv")
FIELDS = {"question_id": int, "image": str, "category": str, "text": str}
NO_JUDGE = "answers are written; a judge's reviews of them are scored with --predictions, --annotations and --judge"


@dataclass(frozen=True)
class Asked:
    """Questions with their reference answers and contexts, by `question_id`, and where each named photo lies."""

    questions: list[dict[str, Any]]
    references: dict[int, str]
    contexts: dict[int, str]
    photos: dict[str, Path]


class FerretBench(Task):
    """Each of the three parts that is there."""

    name = "ferret_bench"
    needs = "region_text/ferret_bench/{refer_caption,refer_reason,ground_conv}_{question,answer,context}.jsonl; an MLLM"
    runs_by_default = True
    kinds = ("mllm",)

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "region_text" / "ferret_bench" / f"{part}_question.jsonl" for root in roots for part in PARTS]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        return [
            FoundSet("ferret_bench", part, file, partial(_read, file.parent, part, root / "coco" / "val2017"))
            for root in roots
            for part, file in zip(PARTS, self.list_locations([root]), strict=True)
            if file.is_file()
        ]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        expect("ferret_bench: a relative score", score_relative([[8, 4], [8, 8]]), 75.0)

    def run(self, predictor: MllmPredictor, dataset: Asked, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        questions, skipped, answered = dataset.questions[: options.limit], dict[int, str](), []

        def open_one(question: dict[str, Any]) -> Image.Image | str:
            return open_sized(dataset.photos[question["image"]], None)

        for rows, photos in open_batches(questions, open_one, options, f"{predictor.name} on ferret_bench", skipped):
            answers = predictor.answer(photos, [questions[row]["text"] for row in rows])
            for row, answer in zip(rows, answers, strict=True):
                number = questions[row]["question_id"]
                more = {"reference": dataset.references.get(number), "context": dataset.contexts.get(number)}
                answered.append({**questions[row], "answer": answer, **more})
        protocol = f"answers-only/{predictor.box_format.name}"
        score = Score(found.split, protocol, "relative_score", skipped=Counter(skipped.values()), reason=NO_JUDGE)
        return TaskOutput(name_dataset("ferret_bench", found.rendered), found.rendered, [score], answered)


def _read(folder: Path, part: str, photos: Path) -> Asked:
    def texts(kind: str) -> dict[int, str]:
        file = folder / f"{part}_{kind}.jsonl"
        return {line["question_id"]: line["text"] for line in read_lines(file, f"Ferret-Bench's {kind}s", FIELDS)}

    file, folders = folder / f"{part}_question.jsonl", PhotoFolders([photos])
    questions = read_lines(file, "Ferret-Bench's questions", FIELDS)
    places = {name: folders.path(name, where=str(file)) for name in dict.fromkeys(one["image"] for one in questions)}
    return Asked(questions, texts("answer"), texts("context"), places)
