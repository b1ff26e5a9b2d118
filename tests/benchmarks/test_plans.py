"""The plans that come with the kit ask for figures that the tasks write: told here, and not after hours of training."""

import json

import numpy as np
import pytest

from benchmarks.data_roots import list_roots
from benchmarks.experiments.plan import PLANS, read_plan
from benchmarks.experiments.record import pick_metrics
from benchmarks.predictors.contract import LoadedModel
from benchmarks.predictors.detector import Found
from benchmarks.provenance import Provenance
from benchmarks.runner import TaskRunner
from benchmarks.tasks.contract import Options
from benchmarks.tasks.registry import find_tasks


@pytest.fixture
def readings(colours):
    """One reading of each kind, under the names that an export's readings have."""

    class Prompter(colours.Reader):
        name = "prompter"

    class Detector:
        kind, form, name = "detector", "name", "cloc-detector"

        def detect(self, images, names, limit=300):
            boxes = np.array(colours.places, dtype=float)
            return [Found(boxes, np.full(len(boxes), 0.5), np.zeros(len(boxes), dtype=int)) for _ in images]

    return {"encoder": Prompter(), "detector": Detector()}


def caption(root):
    """A caption for every image, as a rendered world has them."""
    told = json.loads((root / "coco" / "annotations" / "instances_val2017.json").read_text())
    names = {one["id"]: one["name"] for one in told["categories"]}
    first = {one["image_id"]: names[one["category_id"]] for one in told["annotations"]}
    captions = [{"id": image, "image_id": image, "caption": f"a {name} scene"} for image, name in first.items()]
    file = root / "coco" / "annotations" / "captions_val2017.json"
    file.write_text(json.dumps({"info": told["info"], "images": told["images"], "annotations": captions}))


@pytest.mark.parametrize("file", sorted(PLANS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_figure_of_a_plan_has_one_row(file, colours, readings, tmp_path):
    plan = read_plan(str(file))
    root = colours.write(tmp_path / "scenes", rendered=True, caption_only=("blue",)).parent
    caption(root / "scenes")
    rows = []
    for task in find_tasks([metric.task for metric in plan.metrics.values()]):
        reading = readings[task.kinds[0]]
        session = TaskRunner(
            list_roots(root),
            [LoadedModel("m", None, [reading])],
            Provenance("c", {}, "m", 0),
            Options(progress=False),
            tmp_path,
        )
        rows += [result.row for result in session.run([task])]
    assert all(isinstance(value, float) for value in pick_metrics(rows, plan.metrics).values())
