"""`pope`: is there a ... in the image? Yes or no, three ways of drawing the absent things (Li et al. 2023).

Layout: `pope/coco_pope_{random,popular,adversarial}.json`, JSON lines of `question_id`, `image`, `text`, `label`
(github.com/AoiDragon/POPE). Photos are COCO's val2014. Answers are read by POPE's own rule.
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
from benchmarks.metrics.answers import as_yes, is_yes, note_undecided, score_blind_yes, score_yes
from benchmarks.metrics.intervals import Tally
from benchmarks.predictors.mllm import MllmPredictor
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, add_limit, expect, name_dataset
from benchmarks.tasks.photos import open_batches, open_sized
from cloc.formats.rows import read_lines
from cloc.formats.sources import PhotoFolders

KINDS = ("random", "popular", "adversarial")
PROTOCOL = "yes-no/first-sentence-rule"
FIELDS: dict[str, type | tuple[type, ...]] = {"question_id": int, "image": str, "text": str, "label": (str, bool, int)}


@dataclass(frozen=True)
class Questions:
    """One file's lines, and where each named photo lies."""

    lines: list[dict[str, Any]]
    photos: dict[str, Path]


class Pope(Task):
    """Each of the three files that is there."""

    name = "pope"
    needs = "pope/coco_pope_{random,popular,adversarial}.json and the photos in coco/val2014/; an MLLM"
    runs_by_default = True
    kinds = ("mllm",)

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "pope" / f"coco_pope_{kind}.json" for root in roots for kind in KINDS]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = []
        for root in roots:
            folders = (root / "coco" / "val2014", root / "coco" / "val2017", root / "pope" / "images")
            for kind, file in zip(KINDS, self.list_locations([root]), strict=True):
                if file.is_file():
                    found.append(FoundSet("pope", kind, file, partial(_read, file, folders)))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`."""
        answered = ["Yes, it is.", "No.", "There is not, sadly", "I know it is. No doubt."]
        expect("pope: the rule", [is_yes(text) for text in answered], [True, False, False, True])

    def run(self, predictor: MllmPredictor, dataset: Questions, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        images = sorted({line["image"] for line in dataset.lines})[: options.limit]
        place = {image: number for number, image in enumerate(images)}
        lines = [line for line in dataset.lines if line["image"] in place]
        skipped, answered = dict[int, str](), []

        def open_one(line: dict[str, Any]) -> Image.Image | str:
            return open_sized(dataset.photos[line["image"]], None)

        for rows, photos in open_batches(lines, open_one, options, f"{predictor.name} on pope", skipped):
            answers = predictor.answer(photos, [lines[row]["text"] for row in rows])
            answered += [{**lines[row], "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        protocol = add_limit(PROTOCOL, options)
        scores = score_answers(
            answered, [place[one["image"]] for one in answered], found.split, protocol, Counter(skipped.values())
        )
        return TaskOutput(name_dataset("pope", found.rendered), found.rendered, scores, answered)


def score_answers(
    answered: Sequence[dict[str, Any]], images: Sequence[int], split: str, protocol: str, skipped: Counter[str]
) -> list[Score]:
    """Accuracy with its interval, and POPE's other figures."""
    if not answered:
        return [Score(split, protocol, "accuracy", skipped=skipped, reason="no question could be asked")]
    said, true = [is_yes(one["answer"]) for one in answered], [as_yes(one["label"]) is True for one in answered]
    tally = Tally.of(images, [a == b for a, b in zip(said, true, strict=True)])
    blind, odd = score_blind_yes(true), note_undecided([one["answer"] for one in answered])
    reason = "; ".join(f"{count:,} {why}" for why, count in odd.items()) or None
    facts: dict[str, Any] = {"skipped": skipped, "reason": reason}
    rest = [
        Score(split, protocol, metric, value=value, num_examples=len(answered), **facts, **blind[metric])
        if value is not None
        else Score(split, protocol, metric, skipped=skipped, reason="never yes")
        for metric, value in score_yes(said, true).items()
    ]
    return [Score(split, protocol, "accuracy", tally, **facts, **blind["accuracy"]), *rest]


def _read(file: Path, folders: tuple[Path, ...]) -> Questions:
    lines = read_lines(file, "POPE's questions", FIELDS)
    odd = [line["label"] for line in lines if as_yes(line["label"]) is None]
    if odd:
        raise ValueError(f"{file}: expected label yes or no, got {odd[0]!r} ({len(odd):,} such)")
    photos, names = PhotoFolders(folders), dict.fromkeys(line["image"] for line in lines)
    return Questions(lines, {name: photos.path(name, where=str(file)) for name in names})
