"""The command line: task names in, one table and `results.json` out."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data_roots import list_roots
from cloc.command import INTERRUPTED, printable, say
from cloc.command import run as run_command
from cloc.data_root import find_data_root

DESCRIPTION = """\
Score a model on regions (recognition, retrieval, referring, detection): an export of this kit, an encoder or a detector
of transformers, or an MLLM."""
DETECTION = ("lvis-ap300", "lvis-ap-unlimited", "lvis-fixed-ap", "coco-ap100")
"""Protocols of `--protocol`, written out so that `--help` loads no evaluator."""
EPILOG = """\
examples:
  python benchmarks/run.py                              the newest export on all data that is there
  python benchmarks/run.py refcoco lvis                 two tasks
  python benchmarks/run.py --list                       tasks, what each needs, and whether it was found
  python benchmarks/run.py --model cloc --against clip  A beside B, with the 95 % interval of the difference

  python benchmarks/run.py --predictions FILE --annotations FILE
                                                        score a file of answers alone (COCO, LVIS, grounding)

data is looked for in the official layouts under --data, else $CLOC_DATA, else data/, and under scenes/ in it
(rendered scenes; `python -m cloc.scenes` makes them). results go to runs/bench-N: results.json holds one row a
figure, predictions/ one line an example. exit code 2 means that something asked for cannot be done.
"""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("tasks", nargs="*", metavar="TASK", help="names from --list; none: all but `speed` and its parts")
    made.add_argument(
        "--model",
        metavar="FOLDER",
        help="an export, a run that holds one, or a transformers folder or hub name of CLIP, SigLIP, OWLv2, Grounding "
        "DINO, MM-Grounding DINO, Kosmos-2 or another MLLM; `cloc` and `clip` are reserved words: the newest export "
        "under runs/ with region training, the newest without (default: cloc)",
    )
    made.add_argument("--against", metavar="FOLDER", help="a second one; both are scored on the same examples")
    made.add_argument("--data", metavar="DIR", help="data root (default: $CLOC_DATA, else data/)")
    made.add_argument("--out", metavar="DIR", help="where results go (default: runs/bench-N)")
    made.add_argument("--resume", metavar="DIR", help="go on with a killed run that asked for the same")
    made.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # deepspeed's launcher adds it
    made.add_argument("--limit", type=parse_positive, metavar="N", help="only the first N images of each split")
    made.add_argument(
        "--batch-size", type=parse_positive, default=64, metavar="N", help="images or crops at a time (64)"
    )
    made.add_argument(
        "--boxes-an-image",
        type=parse_positive,
        default=300,
        metavar="N",
        help="that a detector returns at most (%(default)s); more serve LVIS's unlimited and fixed AP only",
    )
    made.add_argument(
        "--boxes-a-level",
        type=parse_positive,
        default=1000,
        metavar="N",
        help="that reach the suppression from each of our detector's five levels (%(default)s); it bounds what "
        "--boxes-an-image can give",
    )
    made.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one, else cpu)")
    made.add_argument(
        "--coordinates",
        choices=("0-1", "0-1000", "pixels"),
        help="how an MLLM writes a box: shares, thousandths or pixels of the image (default: what places.json in its "
        "folder declares, else 0-1)",
    )
    made.add_argument(
        "--grounding-question",
        type=parse_question,
        default="Where is {}?",
        metavar="TEXT",
        help="how an MLLM is asked for a box, {} standing for the phrase (%(default)s); part of the protocol",
    )
    made.add_argument(
        "--region-question",
        type=parse_question,
        default="What is {}?",
        metavar="TEXT",
        help="how an MLLM with region tokens is asked what is in a box, {} standing for the region (%(default)s); part "
        "of the protocol",
    )
    made.add_argument("--list", action="store_true", help="list the tasks, what they need and what was found")
    add_scoring_options(made.add_argument_group("scoring a file of predictions, with no model"))
    return made


def add_scoring_options(group: argparse._ArgumentGroup) -> None:
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
        help="COCO's or LVIS's annotation file; JSON lines of image_id, sent_id, bbox (xyxy); a folder with refs(*).p "
        "and instances.json; or the questions of POPE, Ref-LVIS or Ferret-Bench",
    )
    group.add_argument(
        "--protocol",
        action="append",
        metavar="ID",
        choices=DETECTION,
        help=f"of a detection file, can be repeated: {', '.join(DETECTION)} (default: all that fit)",
    )
    group.add_argument(
        "--fixed-ap-k", type=parse_positive, metavar="N", help="detections a category for lvis-fixed-ap (10,000)"
    )
    group.add_argument(
        "--evaluator",
        choices=("ours", "official"),
        default="ours",
        help="LVIS: our arrays, or the lvis package (minutes; the same figures). COCO is always pycocotools (ours)",
    )
    group.add_argument("--split", metavar="NAME", help="of a folder with refs(*).p: val, testA, testB, test")
    group.add_argument("--judge", metavar="NAME", help="Ferret-Bench: who wrote the reviews; part of the protocol")
    group.add_argument(
        "--intervals",
        action="store_true",
        help="AP with its 95 %% interval, by drawing the images again (a minute and more at LVIS's size)",
    )
    group.add_argument(
        "--plus-one", action="store_true", help="grounding: boxes hold their end pixels, as the refer toolkit counts"
    )


def parse_question(text: str) -> str:
    """A question with one `{}`."""
    if text.count("{}") != 1:
        raise argparse.ArgumentTypeError(f"expected a question with one {{}} where the phrase goes, got {text!r}")
    return text


def parse_positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 2 after a message about a mistake in what was asked."""
    given = make_parser().parse_args(arguments)
    alone = bool(given.predictions or given.annotations)  # a file is scored without a model, and without torch

    def work() -> int:
        if is_scoring(given):
            return score_predictions(given)
        return list_tasks(given) if given.list else measure(given)

    return run_command(work, loads_models=not alone and not given.list)


def is_scoring(given: argparse.Namespace) -> bool:
    """Whether a predictions file is to be scored.

    Raises:
        ValueError: one of the two files is missing, or options of both ways are mixed.
    """
    asked = [
        name for name in ("protocol", "fixed_ap_k", "plus_one", "split", "judge", "intervals") if getattr(given, name)
    ]
    asked += ["evaluator"] if given.evaluator != "ours" else []
    if not given.predictions or not given.annotations:
        if given.predictions or given.annotations or asked:
            raise ValueError("expected both --predictions FILE and --annotations FILE; see --help")
        return False
    mixed = [name for name in ("tasks", "model", "against", "data", "limit", "list", "resume") if getattr(given, name)]
    if mixed:
        name = "TASK" if mixed[0] == "tasks" else f"--{mixed[0]}"
        raise ValueError(f"--predictions scores a file with no model and no task; leave out {name}")
    return True


def score_predictions(given: argparse.Namespace) -> int:
    """Score a file, print the table, write results and report; loads no torch."""
    from benchmarks.out_folder import open_out_folder
    from benchmarks.report.page import Report, write_report
    from benchmarks.rows import write_rows
    from benchmarks.scoring.command import ScoringRequest, score_with_charts
    from benchmarks.table import summarize

    files = Path(given.predictions), Path(given.annotations)
    for file in files:
        if given.out and Path(given.out).resolve() in file.resolve().parents:
            raise ValueError(f"--out: {given.out} holds {file}, which is to be scored; give another folder")
    request = ScoringRequest(
        *files,
        protocols=given.protocol or (),
        fixed_k=given.fixed_ap_k,
        plus_one=given.plus_one,
        official=given.evaluator == "official",
        split=given.split,
        judge=given.judge,
        intervals=given.intervals,
    )
    rows, charts = score_with_charts(request)
    with open_out_folder(given.out) as folder:
        path, report = write_rows(rows, folder), write_report(Report((), rows, charts=charts), folder)
    print(printable(f"{summarize(rows)}\n\nresults: {path}\nreport: {report}"))
    return 0


def list_tasks(given: argparse.Namespace) -> int:
    """Print the tasks, what each needs, and where its data was looked for and found."""
    from benchmarks.speed.measurements import MEASUREMENTS, SpeedMeasurement
    from benchmarks.tasks.contract import Task
    from benchmarks.tasks.registry import TASKS, find_tasks

    where = list_roots(find_data_root(given.data))
    asked: Sequence[Task | SpeedMeasurement] = find_tasks(given.tasks) if given.tasks else [*TASKS, *MEASUREMENTS]
    for task in asked:
        by_default = not isinstance(task, SpeedMeasurement) and task.runs_by_default
        print(f"{task.name}{'' if by_default else '  (only when asked for by name)'}\n  needs {task.needs}")
        if isinstance(task, SpeedMeasurement):
            print("\n".join(["  layout official", *(f"  found {part.name} {part.split}" for part in task.parts)]))
            continue
        print(f"  layout {task.layout}")
        found = task.find(where)
        for one in found:
            location = f" at {one.file}" if one.file.name else ""
            print(printable(f"  found {one.dataset} {one.split}{location}"))
        if not found:
            print("\n".join(f"  not found: {path}" for path in task.list_locations(where)))
    return 0


def measure(given: argparse.Namespace) -> int:
    """Measure with one or two models; among several processes the first one prints and writes."""
    from benchmarks import evaluate as kit
    from benchmarks.out_folder import open_resumable_folder
    from benchmarks.predictors.contract import NOTHING_LOADED
    from benchmarks.tasks.registry import find_tasks
    from cloc import comm

    kit.init_distributed()
    folder: Path | None = None
    try:
        with contextlib.ExitStack() as held:
            held.enter_context(contextlib.redirect_stdout(sys.stdout if comm.is_main() else io.StringIO()))
            tasks, root = find_tasks(given.tasks), find_data_root(given.data)
            settings = kit.Settings(
                limit=given.limit,
                batch_size=given.batch_size,
                boxes_an_image=given.boxes_an_image,
                boxes_a_level=given.boxes_a_level,
                coordinates=given.coordinates,
                grounding_question=given.grounding_question,
                region_question=given.region_question,
                device=given.device or "auto",
            )
            kit.check_data(tasks, list_roots(root))
            names = [word for word in (given.model or "cloc", given.against) if word]
            try:
                sources = [kit.find_export(word) for word in names]
            except ValueError:
                if given.model or given.against or any(getattr(task, "runs_by_default", False) for task in tasks):
                    raise
                sources = []  # what is measured without a model goes on
            models = kit.load_models(sources, kit.find_own_device(settings.device), settings, print) or [NOTHING_LOADED]
            asked = kit.describe_request([task.name for task in tasks], models, root, settings)
            claim = open_resumable_folder(given.out, given.resume, asked)
            folder = Path(comm.on_main(lambda: str(held.enter_context(claim))))
            kit.evaluate(models, tasks, given.data, settings, folder, print)
        return 0
    except KeyboardInterrupt:
        if folder is None:
            raise
        message = f"stopped by Ctrl-C; add --resume {shlex.quote(str(folder))} to the same command to go on"
        return say(message, INTERRUPTED) if comm.is_main() else INTERRUPTED
    finally:
        comm.leave()
