"""A swapped host in lmms-eval as it stands, beside our own `pope` on the same questions.

`python -m benchmarks.external.answers --python neighbours/bin/python`. The folder that `mllm_bridge.swap` wrote goes
to lmms-eval's own `llava_hf` model; only the task is ours, and it imports nothing of the kit. A host with random
weights says nothing sensible: what is compared are its answers, word for word, and the accuracy that follows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data_roots import MARK
from benchmarks.evaluate import find_export
from benchmarks.external.rendered import render_world
from benchmarks.external.side_by_side import (
    add_shared_options,
    compare_figures,
    run,
    run_kit,
    run_other,
    score_ours,
    write_comparison,
)
from cloc.files import read_json, read_json_lines, read_object

PACKAGES = ("lmms-eval", "transformers", "torch", "numpy")
TASK, TASKS = "scenes_yesno", Path(__file__).with_name("lmms_eval_task")
QUESTIONS = "pope/coco_pope_random.json"
ACCURACY = ("pope", "accuracy")


def write_questions(made: Path, root: Path) -> int:
    """The held-out yes/no questions of a world in POPE's layout, and as lmms-eval's task reads them.

    Args:
        made: the world.
        root: new data root; `questions.jsonl` in it holds the same lines with the photo's path.

    Returns:
        How many questions.
    """
    photos, lines = root / "pope" / "images", list[dict[str, Any]]()
    photos.mkdir(parents=True)
    (root / "pope" / MARK).write_text("Rendered scenes of this kit, no photographs.\n", encoding="utf-8")
    for entry in read_json(made / "llava" / "conversations_val.json"):
        if entry["kinds"] == ["yesno"]:
            question, answer = (turn["value"] for turn in entry["conversations"])
            name = Path(entry["image"]).name
            shutil.copy(made / entry["image"], photos / name)
            text = question.removeprefix("<image>\n")
            lines.append({"question_id": len(lines), "image": name, "text": text, "label": answer.lower()})
    (root / QUESTIONS).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    placed = [{**line, "photo": str((photos / line["image"]).resolve())} for line in lines]
    (root / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in placed), encoding="utf-8")
    return len(lines)


def ask_lmms_eval(python: Path, host: Path, root: Path, out: Path) -> tuple[dict[int, str], float]:
    """lmms-eval's answers by question, and its accuracy.

    Raises:
        ValueError: it failed, or wrote no results.
    """
    command: list[str | Path] = [
        python,
        "-m",
        "lmms_eval",
        "--model",
        "llava_hf",
        "--tasks",
        TASK,
        "--include_path",
        TASKS.resolve(),
    ]
    settings = f"pretrained={host.resolve()},device=cpu,device_map=cpu,dtype=float32"
    command += ["--model_args", settings, "--batch_size", "1", "--log_samples"]
    command += ["--output_path", (out / "lmms_eval").resolve()]
    run_other(command, out / "lmms_eval.log", root)
    results, samples = (sorted((out / "lmms_eval").rglob(name)) for name in ("*results.json", "*samples*.jsonl"))
    if not (results and samples):
        raise ValueError(f"lmms-eval ended well and wrote no results; the reason stands in {out / 'lmms_eval.log'}")
    figures = read_object(results[-1], "lmms-eval's results")["results"][TASK]
    answers = {}
    for _, sample in read_json_lines(samples[-1]):
        answers[sample["doc_id"]] = answer_of(sample)
    return answers, next(value for name, value in figures.items() if name.startswith("accuracy,"))


def read_our_answers(results: Path) -> list[dict]:
    """The lines of `pope`'s predictions in a folder of results."""
    (file,) = (results / "predictions").glob("*.jsonl")
    return [line for _, line in read_json_lines(file)]


def answer_of(sample: dict) -> str:
    """The text in one of lmms-eval's logged samples, where it lies in a list of lists."""
    value = sample["filtered_resps"]
    while isinstance(value, list):
        value = value[0]
    return str(value).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when all answers are equal, 1 when one differs, 2 after a message about a mistake."""
    given = make_parser().parse_args(arguments)

    def work(out: Path, versions: dict[str, str]) -> bool:
        model = given.host or find_export(given.encoder)
        asked = write_questions(render_world(out / "world", given.images, conversations=1), out / "set")
        host = given.host or out / "host"
        if given.host is None:
            run_kit(["-m", "mllm_bridge.swap", "--encoder", model, "--out", host, *name_host(given.mllm)])
        rows = score_ours(["pope", "--model", host, "--data", out / "set"], out / "ours")
        answers, accuracy = ask_lmms_eval(given.python.absolute(), host, out / "set", out)
        mine = read_our_answers(out / "ours")
        equal = sum(line["answer"] == answers[line["question_id"]] for line in mine)
        different = len({line["answer"] for line in mine})
        rows_compared = compare_figures({(row.task, row.metric): row.value for row in rows}, {ACCURACY: accuracy})
        print(f"{equal} of {asked} answers are equal word for word; {different} different answers were given")
        more = {"questions": asked, "equal_answers": equal, "different_answers": different, "model": str(model)}
        return write_comparison(rows_compared, versions, out, **more) and equal == asked

    return run(given, PACKAGES, work)


def name_host(mllm: str | None) -> list[str]:
    """The arguments for another host than the tiny one."""
    return ["--mllm", mllm] if mllm else []


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.external.answers",
        description="Put an encoder into a LLaVA, ask lmms-eval and this kit the same rendered questions, and compare "
        "the answers. About two minutes with the tiny host. Exit code 1: an answer differs.",
    )
    add_shared_options(made, "neighbours-mllm")
    made.add_argument("--encoder", default="cloc", metavar="FOLDER", help="an export (default: the newest under runs/)")
    made.add_argument("--mllm", metavar="HOST", help="a LLaVA's folder (default: a tiny one, made here)")
    made.add_argument("--host", type=Path, metavar="FOLDER", help="a host that is swapped already, tuned or not")
    made.add_argument("--images", type=int, default=20, metavar="N", help="scenes asked about (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
