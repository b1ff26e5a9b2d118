"""The command line: task names in, one table and `results.json` out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.roots import data_root, near, roots
from benchmarks.rows import RESULTS, read_rows

DESCRIPTION = "Score an export of this kit on regions: recognition, retrieval, referring, LVIS."
DETECTION = ("lvis-ap300", "lvis-ap-unlimited", "lvis-fixed-ap", "coco-ap100")
"""Protocols of `--protocol`, written out so that `--help` loads no evaluator."""
RESERVED = {"cloc": None, "clip": "clip"}
"""Words for the newest export under runs/, with the objective to ask for; None: any but the baseline."""

EPILOG = """\
examples:
  python benchmarks/run.py                              the newest export on all data that is there
  python benchmarks/run.py refcoco lvis                 two tasks
  python benchmarks/run.py --list                       tasks, what each needs, and whether it was found
  python benchmarks/run.py --model cloc --against clip  A beside B, with the 95 % interval of the difference

  python benchmarks/run.py --predictions FILE --annotations FILE
                                                        score a file of answers alone (COCO, LVIS, grounding)

data is looked for in the official layouts under --data, else $CLOC_DATA, else data/, and under scenes/ in it
(rendered scenes; `python -m cloc.data.scenes` makes them). results go to runs/bench-N: results.json holds one row a
figure, predictions/ one line an example. exit code 2 means that something asked for cannot be done.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("tasks", nargs="*", metavar="TASK", help="names from --list; none: all but `speed`")
    made.add_argument(
        "--model",
        metavar="FOLDER",
        help="an export, or a run that holds one; `cloc` and `clip` are reserved words: the newest export under runs/ "
        "with region training, the newest without (default: cloc)",
    )
    made.add_argument("--against", metavar="FOLDER", help="a second one; both are scored on the same examples")
    made.add_argument("--data", metavar="DIR", help="data root (default: $CLOC_DATA, else data/)")
    made.add_argument("--out", metavar="DIR", help="where results go (default: runs/bench-N)")
    made.add_argument("--limit", type=positive, metavar="N", help="only the first N images of each split")
    made.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images or crops at a time (64)")
    made.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one, else cpu)")
    made.add_argument("--list", action="store_true", help="list the tasks, what they need and what was found")
    scoring_options(made.add_argument_group("scoring a file of predictions, with no model"))
    return made


def scoring_options(group: argparse._ArgumentGroup) -> None:
    """The options of `--predictions`."""
    group.add_argument(
        "--predictions",
        metavar="FILE",
        help="COCO results (JSON list of image_id, category_id, bbox xywh, score), or JSON lines of image_id, sent_id, "
        "pred_bbox_xyxy",
    )
    group.add_argument(
        "--annotations",
        metavar="FILE",
        help="COCO's or LVIS's annotation file, or JSON lines of image_id, sent_id, bbox (xyxy)",
    )
    group.add_argument(
        "--protocol",
        action="append",
        metavar="ID",
        choices=DETECTION,
        help=f"of a detection file, can be repeated: {', '.join(DETECTION)} (default: all that fit)",
    )
    group.add_argument(
        "--fixed-ap-k", type=positive, metavar="N", help="detections a category for lvis-fixed-ap (10,000)"
    )
    group.add_argument(
        "--plus-one", action="store_true", help="grounding: boxes hold their end pixels, as the refer toolkit counts"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 2 after a message about a mistake in what was asked."""
    given = parser().parse_args(arguments)
    try:
        if scoring(given):
            return score_predictions(given)
        return listing(given) if given.list else score(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def scoring(given: argparse.Namespace) -> bool:
    """Whether a predictions file is to be scored.

    Raises:
        ValueError: one of the two files is missing, or options of both ways are mixed.
    """
    asked = [name for name in ("protocol", "fixed_ap_k", "plus_one") if getattr(given, name)]
    if not given.predictions or not given.annotations:
        if given.predictions or given.annotations or asked:
            raise ValueError("expected both --predictions FILE and --annotations FILE; see --help")
        return False
    mixed = [name for name in ("tasks", "model", "against", "data", "limit", "list") if getattr(given, name)]
    if mixed:
        name = "TASK" if mixed[0] == "tasks" else f"--{mixed[0]}"
        raise ValueError(f"--predictions scores a file with no model and no task; leave out {name}")
    return True


def score_predictions(given: argparse.Namespace) -> int:
    """Score a file, print the table, write the results; loads no torch."""
    from benchmarks.rows import write_rows
    from benchmarks.scoring.command import Asked, score_files
    from benchmarks.scoring.summary import summary

    files = Path(given.predictions), Path(given.annotations)
    for file in files:
        if given.out and Path(given.out).resolve() in file.resolve().parents:
            raise ValueError(f"--out: {given.out} holds {file}, which is to be scored; give another folder")
    rows = score_files(Asked(*files, given.protocol or (), given.fixed_ap_k, given.plus_one))
    path = write_rows(rows, out_folder(given.out))
    print(f"{summary(rows)}\n\nresults: {path}")
    return 0


def listing(given: argparse.Namespace) -> int:
    """Print the tasks, what each needs, and where its data was looked for and found."""
    from benchmarks.tasks.registry import TASKS, tasks_named

    where = roots(data_root(given.data))
    for task in tasks_named(given.tasks) if given.tasks else TASKS:
        print(f"{task.name}{'' if task.bare else '  (only when asked for by name)'}\n  needs {task.needs}")
        found = task.find(where)
        for one in found:
            place = f" at {one.file}" if one.file.name else ""
            print(f"  found {one.dataset} {one.split}{place}")
        if not found:
            print("\n".join(f"  not found: {place}" for place in task.places(where)))
    return 0


def score(given: argparse.Namespace) -> int:
    """Measure, print the table, write the results."""
    from benchmarks.comparison import compare, one_sided
    from benchmarks.provenance import provenance
    from benchmarks.rows import write_rows
    from benchmarks.session import Session
    from benchmarks.table import LEGEND, comparison_table, single_table
    from benchmarks.tasks.contract import Options
    from benchmarks.tasks.registry import tasks_named

    tasks, where = tasks_named(given.tasks), roots(data_root(given.data))
    if not any(task.find(where) for task in tasks):
        raise ValueError(
            f"no data for {', '.join(task.name for task in tasks)} under {where[0]} or {where[1]}; render scenes with "
            f"`python -m cloc.data.scenes --out {where[1]}`, or give --data; --list shows what is looked for"
        )
    device = device_of(given.device)
    sides = models(given, device, needed=any(task.bare for task in tasks))
    folder = out_folder(given.out)
    options = Options(limit=given.limit)
    session = Session(where, sides, provenance(device, seed=0), options, folder)
    results = session.run(tasks)
    compared = compare(results) if len(sides) == 2 else []
    rows = [result.row for result in results]
    path = write_rows([*rows, *(one.row for one in compared)], folder)
    print(comparison_table([one for one in compared if one.difference]), end="")
    told = {one.a.key for one in compared}
    rest = [*one_sided(compared), *(result.row for result in results if result.key not in told)]
    print(single_table(rest))
    print(f"\n{LEGEND}\nresults: {path}\npredictions: {folder / 'predictions'}")
    return 0


def device_of(named: str | None) -> str:
    """The device to run on.

    Raises:
        ValueError: the name is no device, or there is no such one here.
    """
    import torch

    if named is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(named).type
    except RuntimeError as error:
        raise ValueError(f"--device: expected cpu, cuda or cuda:N, got {named!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {named}: torch sees no CUDA device here; use --device cpu")
    return named


def models(given: argparse.Namespace, device: str, needed: bool) -> list:
    """The sides of the run, loaded.

    Raises:
        ValueError: a folder is no export, or none was named and none is there while one is needed.
    """
    from benchmarks.predictors.loading import load_model
    from benchmarks.predictors.readings import readings_of
    from benchmarks.session import NO_MODEL, Side

    try:
        folders = [export_named(word) for word in (given.model or "cloc", given.against) if word]
    except ValueError:
        if needed or given.model or given.against:
            raise
        return [Side(NO_MODEL, None, ())]
    sides = []
    for folder in folders:
        loaded = load_model(folder, device, given.batch_size)
        print(f"model {loaded.label}: {folder}, objective {loaded.objective}")
        sides.append(Side(loaded.label, loaded.sha256, readings_of(loaded)))
    return sides


def export_named(word: str) -> Path:
    """The folder meant by `--model`: reserved words first, because a folder `cloc/` lies in the repository.

    Raises:
        ValueError: a reserved word, and there is no such export.
    """
    from cloc.export import newest_export

    if word in RESERVED:
        return newest_export(near("runs"), RESERVED[word])
    return Path(word)


def out_folder(named: str | None) -> Path:
    """The folder of the results, made; an older result of this command in a named one is replaced.

    Raises:
        ValueError: the folder holds another program's results.json, or is a file.
    """
    from benchmarks.scoring.origin import numbered

    folder = Path(named) if named else numbered(near("runs"), "bench")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {folder}")
    if (folder / RESULTS).is_file():
        try:
            read_rows(folder / RESULTS)
        except ValueError as error:
            raise ValueError(
                f"--out: {folder} holds a {RESULTS} of something else; give another folder ({error})"
            ) from error
        for old in (folder / "predictions").glob("*.jsonl"):
            old.unlink()
        (folder / RESULTS).unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
