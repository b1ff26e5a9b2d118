"""Everything that can be asked for by name: the tasks, and what is measured in seconds and memory."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from benchmarks.speed.measurements import MEASUREMENTS, SpeedMeasurement
from benchmarks.tasks.coco import Coco, CocoFit
from benchmarks.tasks.contract import Task
from benchmarks.tasks.ferret_bench import FerretBench
from benchmarks.tasks.fgovd import FgOvd
from benchmarks.tasks.flickr30k_grounding import Flickr30kGrounding
from benchmarks.tasks.lvis import Lvis
from benchmarks.tasks.odinw import Odinw
from benchmarks.tasks.pope import Pope
from benchmarks.tasks.refcoco import RefCoco
from benchmarks.tasks.reflvis import RefLvis
from benchmarks.tasks.region_recognition import RegionFit, RegionRecognition
from benchmarks.tasks.region_retrieval import RegionRetrieval
from benchmarks.tasks.retrieval import Retrieval
from benchmarks.tasks.zeroshot import ZeroShot

TASKS: tuple[Task, ...] = (
    RegionRecognition(),
    RegionRetrieval(),
    RefCoco("refcoco"),
    RefCoco("refcoco+"),
    RefCoco("refcocog"),
    Flickr30kGrounding(),
    RefLvis(),
    FgOvd(),
    Lvis(),
    Coco(),
    Odinw(),
    ZeroShot(),
    Retrieval(),
    Pope(),
    FerretBench(),
    RegionFit(),
    CocoFit(),
)


def find_tasks(names: Sequence[str]) -> list[Task | SpeedMeasurement]:
    """The tasks and measurements asked for, each once, in the order asked; without names the tasks that run by default.

    Raises:
        ValueError: a name is unknown; the nearest known one is given.
    """
    known: dict[str, Task | SpeedMeasurement] = {task.name: task for task in TASKS}
    known |= {one.name: one for one in MEASUREMENTS}
    if not names:
        return [task for task in TASKS if task.runs_by_default]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"task {name!r} is unknown; {hint}known tasks: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]
