"""Measure models: load them, run the tasks, write rows, predictions and the report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import distributed as dist

from benchmarks.comparison import compare, one_sided
from benchmarks.data_roots import data_root, near, roots
from benchmarks.out_folder import held, out_folder
from benchmarks.predictors.loaded_models import load_side
from benchmarks.provenance import Provenance, provenance
from benchmarks.report.gather import story
from benchmarks.report.page import write_report
from benchmarks.rows import write_rows
from benchmarks.runner import NO_MODEL, PROGRESS, Result, Session, Side
from benchmarks.table import LEGEND, comparison_table, single_table
from benchmarks.tasks.contract import Options, Task
from benchmarks.tasks.registry import tasks_named
from cloc import comm
from cloc.device import find_device
from cloc.export import newest_export
from cloc.files import read_object

RESERVED = {"cloc": None, "clip": "clip"}
"""Words for the newest export under runs/, with the objective to ask for; None: any but the baseline."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""A name such as google/owlv2-base-patch16-ensemble; nothing else makes a run look at the network."""

PHOTOS_AT_ONCE = 256
"""Photos held in memory at a time: work for four processes at the default batch size."""
ASKED = "asked.json"


def score(given: argparse.Namespace) -> int:
    """Measure, print the table, write the results. Several processes share the asking; the main one writes."""
    tasks, where = tasks_named(given.tasks), roots(data_root(given.data))
    if not any(task.find(where) for task in tasks):
        raise ValueError(
            f"no data for {', '.join(task.name for task in tasks)} under {where[0]} or {where[1]}; render scenes with "
            f"`python -m cloc.scenes --out {where[1]}`, or give --data; --list shows what is looked for"
        )
    device = own_device(find_device(given.device or "auto"))
    sides = models(given, device, needed=any(task.bare for task in tasks))
    known = provenance(device, seed=0)
    with contextlib.ExitStack() as kept:
        made = str(run_folder(given, tasks, sides, known, kept)) if comm.is_main() else None
        folder = given.folder = Path(comm.from_main(made))
        measure_into(folder, given, tasks, where, sides, known)
    return 0


def measure_into(
    folder: Path,
    given: argparse.Namespace,
    tasks: list[Task],
    where: Sequence[Path],
    sides: list[Side],
    known: Provenance,
) -> None:
    """Run the tasks and write what they found."""
    at_once = max(PHOTOS_AT_ONCE, given.batch_size * comm.world_size())
    options = Options(
        given.limit,
        at_once,
        progress=comm.is_main(),
        share=given.batch_size,
        boxes_an_image=given.boxes_an_image,
        boxes_a_level=given.boxes_a_level,
    )
    session = Session(where, sides, known, options, folder, given.batch_size)
    results = session.run(tasks)
    if comm.is_main():
        tell(session, results)


def tell(session: Session, results: list[Result]) -> None:
    """Write rows and report, print the table, and throw the progress away."""
    sides, folder = session.sides, session.folder
    compared = compare(results) if len(sides) == 2 else []
    rows = [result.row for result in results]
    path = write_rows([*rows, *(one.row for one in compared)], folder)
    print(comparison_table([one for one in compared if one.difference]), end="")
    told = {one.a.key for one in compared}
    rest = [*one_sided(compared), *(result.row for result in results if result.key not in told)]
    print(single_table(rest))
    exports = {side.label: side.folder for side in sides if side.folder is not None}
    report = write_report(story(session, exports, rest, [one for one in compared if one.difference]), folder)
    print(f"\n{LEGEND}\nresults: {path}\npredictions: {folder / 'predictions'}\nreport: {report}")
    shutil.rmtree(folder / PROGRESS, ignore_errors=True)


def run_folder(
    given: argparse.Namespace, tasks: list[Task], sides: list[Side], known: Provenance, kept: contextlib.ExitStack
) -> Path:
    """The folder of the results, held by `kept`: a new one, or that of a killed run that asked for the same.

    Raises:
        ValueError: the run to go on with asked for something else, or is none.
    """
    asked: dict[str, Any] = {
        "tasks": [task.name for task in tasks],
        "models": [[side.label, side.sha256, [one.name for one in side.predictors]] for side in sides],
        "data": str(data_root(given.data).resolve()),
        "limit": given.limit,
        "batch_size": given.batch_size,
        "boxes_an_image": given.boxes_an_image,
        "boxes_a_level": given.boxes_a_level,
        "coordinates": given.coordinates,
        "grounding_question": given.grounding_question,
        "region_question": given.region_question,
        "versions": known.versions,
    }
    if given.resume is None:
        folder = kept.enter_context(out_folder(given.out))
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)
        (folder / PROGRESS).mkdir()
        (folder / PROGRESS / ASKED).write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        return folder
    file = Path(given.resume) / PROGRESS / ASKED
    if not file.is_file():
        raise ValueError(f"--resume: {given.resume} is no unfinished run (no {PROGRESS}/{ASKED}); start a new one")
    before = read_object(file, "what an unfinished run asked for", "start a new run")
    other = [name for name in asked if asked[name] != before.get(name)]
    if other:
        told = "; ".join(f"{name} was {before.get(name)}, is {asked[name]}" for name in other)
        raise ValueError(f"--resume: {given.resume} asked for something else: {told}; ask the same, or start a new run")
    kept.enter_context(held(Path(given.resume)))
    return Path(given.resume)


def models(given: argparse.Namespace, device: str, needed: bool) -> list:
    """The sides of the run, loaded.

    Raises:
        ValueError: a folder is no export, or none was named and none is there while one is needed.
    """
    try:
        places = [export_named(word) for word in (given.model or "cloc", given.against) if word]
    except ValueError:
        if needed or given.model or given.against:
            raise
        return [Side(NO_MODEL, None, ())]
    sides, how = [], (given.coordinates, given.grounding_question, given.boxes_a_level, given.region_question)
    for place in places:
        sides.append(load_side(place, device, given.batch_size, *how))
        print(f"model {sides[-1].label}: {place}, {sides[-1].told}")
    return sides


def init_distributed() -> None:
    """Join the other processes of a launch, over gloo: answers travel as objects, so no accelerator takes part."""
    if comm.world_size() > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def own_device(device: str) -> str:
    """`cuda` becomes this process's own one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and comm.world_size() > 1 else device


def export_named(word: str) -> Path | str:
    """The folder or hub name meant by `--model`: reserved words first, because a folder `cloc/` lies in the repository.

    Raises:
        ValueError: a reserved word, and there is no such export.
    """
    if word in RESERVED:
        return newest_export(near("runs"), RESERVED[word])
    return word if not Path(word).exists() and HUB_NAME.fullmatch(word) else Path(word)
