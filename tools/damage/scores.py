"""Files of truth and of answers, scored alone; and files of evaluation splits that a set is compared with."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tools.damage.annotations import coco, lvis
from tools.damage.running import COUNTED, OK, Reader, call
from tools.damage.values import document, hurt, lines

Pair = tuple[Any, Any]


def detections(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers that are right."""
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: one[key] for key in keys}, "score": 0.9} for one in truth["annotations"]]


def coco_pair() -> Pair:
    """COCO's."""
    truth = copy.deepcopy(coco().files["instances.json"])
    return truth, detections(truth)


def lvis_pair() -> Pair:
    """LVIS's."""
    truth = copy.deepcopy(lvis().files["lvis.json"])
    return truth, detections(truth)


def grounding_pair() -> Pair:
    """Boxes of expressions, as JSON lines."""
    shared = [{"image_id": n // 2, "sent_id": n} for n in range(24)]
    truth = [{**one, "sent": "left cup", "bbox": [1, 2, 20, 19], "height": 30, "width": 40} for one in shared]
    return truth, [{**one, "pred_bbox_xyxy": [1, 2, 20, 18]} for one in shared]


def pope_pair() -> Pair:
    """Yes and no, as JSON lines."""
    truth = [
        {"question_id": n, "image": "x.jpg", "text": "Is there a dog?", "label": ["yes", "no"][n % 2]}
        for n in range(24)
    ]
    return truth, [{"question_id": n, "answer": ["Yes", "No"][n % 2]} for n in range(24)]


PAIRS: dict[str, Callable[[], Pair]] = {
    "coco": coco_pair, "lvis": lvis_pair, "grounding": grounding_pair, "pope": pope_pair,
}  # fmt: skip


def prepare(make: Callable[[], Pair], world: Path) -> Pair:
    """The pair, once scored as it is."""
    truth, answers = make()
    score(json.dumps(truth).encode(), json.dumps(answers).encode(), world)
    return truth, answers


def score(truth: bytes, answers: bytes, folder: Path) -> str:
    """The command on two files."""
    from benchmarks.cli import main

    (folder / "truth.json").write_bytes(truth)
    (folder / "answers.json").write_bytes(answers)
    files = ["--predictions", folder / "answers.json", "--annotations", folder / "truth.json"]
    return call(main, *files, "--out", folder / "scores")


def feed(state: Pair, random: Random, folder: Path) -> str:
    """One of the two files damaged."""
    as_lines = "bbox" in str(state[1][0]) or "answer" in state[1][0]
    as_lines = as_lines and isinstance(state[0], list) and random.random() < 0.6
    bad = random.randrange(2)
    texts = [json.dumps(one).encode() for one in state]
    texts[bad] = lines(state[bad], random) if as_lines else document(state[bad], random)
    score(texts[0], texts[1], folder)
    rows = json.loads((folder / "scores" / "results.json").read_text())["rows"]
    return COUNTED if any(row["num_skipped"] or row["reason"] for row in rows) else OK


def read_evaluation(state: Any, random: Random, folder: Path) -> str:
    """An evaluation split that `check --against` compares with."""
    from cloc.check import read_evaluation as read

    kind = random.randrange(3)
    if kind == 0:
        file, data = folder / "instances_val2017.json", document(coco().files["instances.json"], random)
    elif kind == 1:
        file, data = folder / "REC_refcoco_val.jsonl", lines(grounding_pair()[0], random)
    else:
        import pickle

        refs = [{"image_id": n, "split": "val", "file_name": f"COCO_train2014_{n:012d}_1.jpg"} for n in range(9)]
        file, data = folder / "refs(unc).p", hurt(pickle.dumps(refs, protocol=2), random)
    file.write_bytes(data)
    read(file)
    return OK


def nothing(world: Path) -> None:
    """No files are needed."""


SCORES = (
    *(Reader(f"answers {name}", 20, partial(prepare, make), feed) for name, make in PAIRS.items()),
    Reader("evaluation split", 30, nothing, read_evaluation),
)
