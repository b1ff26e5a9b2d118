"""Measure models: `evaluate(models, tasks, data)` gives rows, and writes them with predictions and a report if asked.

    from benchmarks.evaluate import evaluate

    rows = evaluate(["runs/quickstart/export"], ["refcoco", "region_recognition"], "data")

The command line calls it with a folder, see `benchmarks.cli`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import distributed as dist

from benchmarks.comparison import Compared, compare, list_one_sided
from benchmarks.data_roots import list_roots
from benchmarks.predictors.contract import NOTHING_LOADED, LoadedModel
from benchmarks.predictors.detector import A_LEVEL, LIMIT
from benchmarks.predictors.loaded_models import load_model
from benchmarks.predictors.mllm import QUESTION, REGION_QUESTION
from benchmarks.provenance import MODEL_PACKAGES, find_provenance, list_versions
from benchmarks.report.collect import collect_report
from benchmarks.report.page import write_report
from benchmarks.rows import Row, write_rows
from benchmarks.runner import PROGRESS, ScoredRow, TaskRunner
from benchmarks.speed.measurements import SpeedMeasurement
from benchmarks.table import LEGEND, format_comparison, format_rows
from benchmarks.tasks.contract import Options, Task
from benchmarks.tasks.registry import find_tasks
from cloc import comm
from cloc.data_root import find_data_root, find_near
from cloc.device import find_device
from cloc.export import find_newest_export

RESERVED = {"cloc": None, "clip": "clip"}
"""Words for the newest export under runs/, with the objective to ask for; None: any but the baseline."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""A name such as google/owlv2-base-patch16-ensemble; nothing else makes a run look at the network."""

PHOTOS_AT_ONCE = 256
"""Photos held in memory at a time: work for four processes at the default batch size."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How models are asked. All of it but the device must be the same for a run to be resumed.

    Attributes:
        limit: only the first so many images of each split; None for all.
        batch_size: images or crops at a time.
        boxes_an_image: that a detector returns at most.
        boxes_a_level: (box, name) pairs of each level of our detector that reach the suppression.
        coordinates: how an MLLM writes a box: `0-1`, `0-1000` or `pixels`; None: as its folder declares, else 0-1.
        grounding_question: how an MLLM is asked for a box, {} standing for the phrase.
        region_question: how one with region tokens is asked what is in a box, {} standing for the region.
        device: `cpu`, `cuda`, `cuda:1`, or `auto` for cuda where there is one.
    """

    limit: int | None = None
    batch_size: int = 64
    boxes_an_image: int = LIMIT
    boxes_a_level: int = A_LEVEL
    coordinates: str | None = None
    grounding_question: str = QUESTION
    region_question: str = REGION_QUESTION
    device: str = "auto"


def evaluate(
    models: Sequence[str | Path | LoadedModel],
    tasks: Sequence[str | Task | SpeedMeasurement] = (),
    data: str | Path | None = None,
    settings: Settings | None = None,
    folder: Path | None = None,
    show: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Score models on the data that is there.

    Args:
        models: one or two: folders of exports or of transformers models, names on the hub, the words `cloc` and `clip`
            for the newest exports, or models that `load_model` gave. With two, differences are rows too.
        tasks: names (see `run.py --list`) or tasks; none: all that run by default.
        data: data root; None: $CLOC_DATA, else `data/`.
        settings: how models are asked.
        folder: gets results.json, predictions and report.html, and answers while the run lasts, so that a killed one
            goes on; None writes nothing.
        show: called with the table and where the results lie.

    Returns:
        One row a figure; those of a comparison come last. Among several processes all return the same.

    Raises:
        ValueError: a model, a task or a data root is not there, or there is no data for any of the tasks.
    """
    settings, where = settings or Settings(), list_roots(find_data_root(data))
    chosen: list[Task | SpeedMeasurement] = [] if tasks else find_tasks(())
    for task in tasks:
        chosen += find_tasks([task]) if isinstance(task, str) else [task]
    check_data(chosen, where)
    device = find_own_device(settings.device)
    loaded = load_models(models, device, settings, show) or [NOTHING_LOADED]
    options = Options(
        limit=settings.limit,
        photos_at_once=max(PHOTOS_AT_ONCE, settings.batch_size * comm.world_size()),
        progress=comm.is_main(),
        share=settings.batch_size,
        boxes_an_image=settings.boxes_an_image,
        boxes_a_level=settings.boxes_a_level,
    )
    runner = TaskRunner(where, loaded, find_provenance(device, seed=0), options, folder, settings.batch_size)
    scored = runner.run(chosen)
    compared = compare(scored) if len(loaded) == 2 else []
    if folder is not None and comm.is_main():
        write_results(runner, scored, compared, show)
    return [*(one.row for one in scored), *(one.row for one in compared)]


def check_data(tasks: Sequence[Task | SpeedMeasurement], where: Sequence[Path]) -> None:
    """Refuse before a model is loaded.

    Raises:
        ValueError: there is no data for any of the tasks; measurements of speed need none.
    """
    if not any(isinstance(task, SpeedMeasurement) or task.find(where) for task in tasks):
        raise ValueError(
            f"no data for {', '.join(task.name for task in tasks)} under {where[0]} or {where[1]}; render scenes with "
            f"`python -m cloc.scenes --out {where[1]}`, or give --data; --list shows what is looked for"
        )


def load_models(
    models: Sequence[str | Path | LoadedModel], device: str, settings: Settings, show: Callable[[str], None]
) -> list[LoadedModel]:
    """Load what is not loaded yet, and say what it is.

    Raises:
        ValueError: a folder is no export, or a reserved word stands for none.
    """
    sources = [find_export(one) if isinstance(one, str) else one for one in models]
    loaded: list[LoadedModel] = []
    for source in sources:
        if isinstance(source, LoadedModel):
            loaded.append(source)
            continue
        how = settings.coordinates, settings.grounding_question, settings.boxes_a_level, settings.region_question
        loaded.append(load_model(source, device, settings.batch_size, *how))
        show(f"model {loaded[-1].label}: {source}, {loaded[-1].description}")
    return loaded


def find_export(word: str) -> Path | str:
    """The folder or hub name meant by `--model`: reserved words first, because a folder `cloc/` lies in the repository.

    Raises:
        ValueError: a reserved word, and there is no such export.
    """
    if word in RESERVED:
        return find_newest_export(find_near("runs"), RESERVED[word])
    return word if not Path(word).exists() and HUB_NAME.fullmatch(word) else Path(word)


def write_results(
    runner: TaskRunner, scored: Sequence[ScoredRow], compared: Sequence[Compared], show: Callable[[str], None]
) -> None:
    """Write rows and report, show the table, and throw the progress away."""
    folder = runner.folder
    assert folder is not None
    path = write_rows([*(one.row for one in scored), *(one.row for one in compared)], folder)
    different = [one for one in compared if one.difference]
    keys = {one.a.key for one in compared}
    rest = [*list_one_sided(compared), *(one.row for one in scored if one.key not in keys)]
    report = write_report(collect_report(runner, rest, different), folder)
    table = f"{format_comparison(different)}{format_rows(rest)}"
    show(f"{table}\n\n{LEGEND}\nresults: {path}\npredictions: {folder / 'predictions'}\nreport: {report}")
    shutil.rmtree(folder / PROGRESS, ignore_errors=True)


def describe_request(tasks: Sequence[str], models: Sequence[LoadedModel], data: Path, settings: Settings) -> dict:
    """What must be asked again for a killed run to go on."""
    asked = asdict(settings)
    del asked["device"]
    return {
        "tasks": list(tasks),
        "models": [[model.label, model.sha256, [one.name for one in model.predictors]] for model in models],
        "data": str(data.resolve()),
        **asked,
        "versions": list_versions(MODEL_PACKAGES),
    }


def init_distributed() -> None:
    """Join the other processes of a launch, over gloo: answers travel as objects, so no accelerator takes part."""
    if comm.world_size() > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def find_own_device(asked: str) -> str:
    """The device that was asked for; among several processes `cuda` becomes this one's own."""
    device = find_device(asked)
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and comm.world_size() > 1 else device
