"""Detection: answers to files to figures, with a detector that reads colours."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.comparison import compare
from benchmarks.data_roots import list_roots
from benchmarks.metrics.lvis_ap import PROTOCOLS
from benchmarks.metrics.proposals import PROTOCOL as AGNOSTIC
from benchmarks.predictors.contract import LoadedModel
from benchmarks.predictors.detector import ClocDetector, Found, as_found
from benchmarks.provenance import Provenance
from benchmarks.runner import TaskRunner
from benchmarks.tasks.coco import Coco, CocoFit
from benchmarks.tasks.contract import Options
from benchmarks.tasks.lvis import Lvis
from benchmarks.tasks.region_recognition import RegionRecognition
from cloc.data.concepts import ConceptDictionary

QUIET = Options(progress=False)
PLACE = Provenance("abc", {}, "machine", 0)


class ColourDetector:
    """Finds each painted rectangle; `skip` names are never found, `nothing` finds none at all."""

    kind, form = "detector", "name"
    name = "colour-detector"

    def __init__(self, colours, skip=(), nothing=False):
        self.reader, self.places, self.skip, self.nothing = colours.Reader(), colours.places, skip, nothing

    def detect(self, images, names, limit=300):
        found = []
        for image in images:
            boxes = np.array(self.places, dtype=float)
            kinds = self.reader.encode_regions([image], [boxes])[0].argmax(axis=1)
            kept = np.array([names[k] not in self.skip and not self.nothing for k in kinds], dtype=bool)
            found.append(Found(boxes[kept], np.linspace(0.9, 0.5, len(kinds))[kept], kinds[kept]))
        return found


def measured(root, folder, predictor, task, options=QUIET):
    session = TaskRunner(list_roots(root), [LoadedModel("m", None, [predictor])], PLACE, options, folder)
    return session.run([task]), session


def value(results, protocol, metric, split="val"):
    limit = "/300-boxes-an-image/1000-a-level" if protocol in PROTOCOLS[1:] else ""
    wanted = (f"{protocol}/name{limit}", metric, split)
    (row,) = [r.row for r in results if (r.row.protocol, r.row.metric, r.row.split) == wanted]
    return row.value


@pytest.mark.parametrize("task", [Lvis(), Coco()], ids=lambda task: task.name)
def test_a_perfect_detector_reaches_one_and_an_empty_one_zero(task, root, colours, tmp_path):
    protocols = PROTOCOLS if task.name == "lvis" else ("coco-ap100",)
    perfect, _ = measured(root, tmp_path / "a", ColourDetector(colours), task)
    empty, _ = measured(root, tmp_path / "b", ColourDetector(colours, nothing=True), task)
    for protocol in protocols:
        assert value(perfect, protocol, "AP") == pytest.approx(1.0, abs=1e-12)
        assert value(empty, protocol, "AP") == 0.0
    assert value(perfect, AGNOSTIC, "AR") == pytest.approx(1.0)
    assert value(empty, AGNOSTIC, "AR") == 0.0


def test_a_fit_reads_the_training_split_and_says_so(colours, tmp_path):
    root = colours.write(tmp_path / "root", images=4)
    assert CocoFit().find([root]) == []  # only val2017 is there
    annotations = root / "coco" / "annotations"
    (annotations / "instances_val2017.json").rename(annotations / "instances_train2017.json")
    (root / "coco" / "val2017").rename(root / "coco" / "train2017")
    results, _ = measured(root, tmp_path / "out", ColourDetector(colours), CocoFit())
    assert value(results, "coco-ap100", "AP", split="train (a fit, no evaluation)") == pytest.approx(1.0, abs=1e-12)
    assert not CocoFit.runs_by_default


def test_a_set_that_cannot_be_scored_is_said_before_anything_is_asked(colours, tmp_path):
    root = colours.write(tmp_path / "root", images=4)
    file = root / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["area"] = "large"
    file.write_text(json.dumps(content))
    unasked = ColourDetector(colours)
    unasked.detect = None
    with pytest.raises(ValueError, match=r"annotations.*area"):
        measured(root, tmp_path / "out", unasked, Coco())


def test_a_detector_is_asked_for_as_many_boxes_as_the_protocol_names(root, colours, tmp_path):
    asked = []

    class Listening(ColourDetector):
        def detect(self, images, names, limit=300):
            asked.append(limit)
            return super().detect(images, names, limit)

    results, _ = measured(root, tmp_path, Listening(colours), Lvis(), Options(progress=False, boxes_an_image=7000))
    assert set(asked) == {7000}
    named = {result.row.protocol for result in results if result.row.protocol.startswith("lvis")}
    assert named == {
        "lvis-ap300/name",
        "lvis-ap-unlimited/name/7000-boxes-an-image/1000-a-level",
        "lvis-fixed-ap/name/7000-boxes-an-image/1000-a-level",
    }


def test_a_category_that_is_never_found_costs_its_share(root, colours, tmp_path):
    results, session = measured(root, tmp_path, ColourDetector(colours, skip=("blue",)), Lvis())
    assert value(results, "lvis-ap300", "AP") == pytest.approx(0.75)
    assert value(results, "lvis-ap300", "APf") == pytest.approx(1.0)
    assert value(results, "lvis-ap300", "APc") == pytest.approx(0.5)
    assert value(results, "lvis-ap300", "APr") is None
    (chart,) = session.report_inputs[0].charts
    assert {curve.name: curve.y[-1] for curve in chart.curves} == {
        "c (common)": pytest.approx(0.5),
        "f (frequent)": pytest.approx(1.0),
        "all": pytest.approx(0.75),
    }


def test_names_are_asked_with_blanks_and_split_by_what_training_boxed(colours, tmp_path):
    asked = []

    class Listening(ColourDetector):
        def detect(self, images, names, limit=300):
            asked[:] = names
            return super().detect(images, names, limit)

    root = colours.write(tmp_path / "root", rendered=True, caption_only=("blue",))
    detector = Listening(colours, skip=("blue",))
    for task, protocol in ((Lvis(), "lvis-ap300"), (Coco(), "coco-ap100")):
        results, _ = measured(root, tmp_path / task.name, detector, task)
        assert value(results, protocol, "AP", "val/boxed") == pytest.approx(1.0)
        assert value(results, protocol, "AP", "val/caption-only") == 0.0
        assert value(results, protocol, "AP", "val/all") == pytest.approx(0.75)
    assert asked == ["red", "green", "blue", "fire opal"]


def test_definitions_are_asked_where_training_had_them_and_the_protocol_says_so(colours, tmp_path):
    asked = []

    class Reading(ColourDetector):
        form = "name+definition"

        def detect(self, images, names, limit=300):
            asked[:] = names
            return super().detect(images, names, limit)

    root = colours.write(tmp_path / "root")
    file = root / "lvis" / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    for category in content["categories"][:3]:
        category["def"] = f"the  Colour {category['name']}"
    file.write_text(json.dumps(content))
    results, _ = measured(root, tmp_path / "lvis", Reading(colours), Lvis())
    assert asked == ["red, the colour red", "green, the colour green", "blue, the colour blue", "fire opal"]
    assert {r.row.protocol.partition("/")[2] for r in results} == {
        "name+definition",
        "name+definition/300-boxes-an-image/1000-a-level",
        "300-boxes-an-image/name+definition",
    }
    results, _ = measured(root, tmp_path / "coco", Reading(colours), Coco())  # COCO's file has no definition
    assert asked == ["red", "green", "blue", "fire opal"]
    assert {r.row.protocol for r in results} == {"coco-ap100/name", f"{AGNOSTIC}/name"}
    Reading.dictionary = ConceptDictionary({"Red": "as blood", "opal": "a stone"})  # what the export was trained with
    results, _ = measured(root, tmp_path / "trained", Reading(colours), Lvis())
    assert asked == ["red, as blood", "green, the colour green", "blue, the colour blue", "fire opal, a stone"]
    results, _ = measured(root, tmp_path / "coco-trained", Reading(colours), Coco())
    assert asked == ["red, as blood", "green", "blue", "fire opal, a stone"]
    assert {r.row.protocol for r in results} == {"coco-ap100/name+definition", f"{AGNOSTIC}/name+definition"}


@pytest.mark.parametrize("task", [Lvis(), Coco()], ids=lambda task: task.name)
def test_the_results_file_alone_gives_the_same_figures(task, root, colours, tmp_path, monkeypatch):
    results, _ = measured(root, tmp_path / "run", ColourDetector(colours, skip=("green",)), task)
    (file,) = (tmp_path / "run" / "predictions").glob("*.json")
    truth = {"lvis": "lvis/lvis_v1_val.json", "coco": "coco/annotations/instances_val2017.json"}[task.name]
    assert main(["--predictions", str(file), "--annotations", str(root / truth), "--out", str(tmp_path / "alone")]) == 0
    rows = json.loads((tmp_path / "alone" / "results.json").read_text())["rows"]
    alone = {(row["protocol"], row["metric"]): row["value"] for row in rows}
    named = [(r.row.protocol.split("/name")[0], r.row) for r in results]
    ours = {(protocol, row.metric): row.value for protocol, row in named if protocol != AGNOSTIC}
    assert alone.keys() == ours.keys()
    assert all(ours[key] == pytest.approx(alone[key], abs=1e-12) for key in ours if ours[key] is not None)


def test_a_missing_photo_is_counted_not_passed_over(colours, tmp_path):
    root = colours.write(tmp_path / "root", images=5)
    (root / "coco" / "val2017" / f"{2:012d}.jpg").unlink()
    results, _ = measured(root, tmp_path / "out", ColourDetector(colours), Coco())
    row = next(r.row for r in results if r.row.metric == "AP")
    assert (row.num_examples, row.num_skipped, row.reason) == (4, 1, "skipped: 1 photo missing")
    assert row.value == pytest.approx(1.0)


def test_no_photo_at_all_gives_reasons(colours, tmp_path):
    root = colours.write(tmp_path / "root", images=3)
    for photo in (root / "coco" / "val2017").iterdir():
        photo.unlink()
    results, _ = measured(root, tmp_path / "out", ColourDetector(colours), Lvis())
    assert {r.row.value for r in results} == {None}
    assert "none of the 3 photos can be used" in results[0].row.reason


def unread(task):
    """The task, with data sets that fall over when they are read."""
    find = task.find
    task.find = lambda roots: [replace(one, load=None) for one in find(roots)]
    return task


def test_a_kind_of_model_that_cannot_do_a_task_says_so_and_reads_no_data(root, colours, tmp_path):
    results, _ = measured(root, tmp_path, ColourDetector(colours), unread(RegionRecognition()))
    assert [r.row.reason for r in results] == ["m: a detector cannot do this; it takes an encoder or an mllm"]
    results, _ = measured(root, tmp_path, colours.Reader(), unread(Coco()))
    assert [r.row.reason for r in results] == ["m: an encoder cannot do this; it takes a detector"]


@pytest.mark.parametrize("task", [Lvis(), Coco()], ids=lambda task: task.name)
def test_two_detectors_are_compared_with_paired_intervals(task, root, colours, tmp_path):
    sides = [LoadedModel(str(skip), None, [ColourDetector(colours, skip)]) for skip in ((), ("blue",))]
    results = TaskRunner(list_roots(root), sides, PLACE, QUIET, tmp_path).run([task])
    valued = {r.row.metric for r in results if r.row.ci95 is not None}
    assert {"AP", "AP50", "AP75"} <= valued <= {"AP", "AP50", "AP75", "APr", "APc", "APf"}
    found = {(one.a.row.protocol, one.a.row.metric): one.difference for one in compare(results) if one.difference}
    assert {protocol.partition("/")[0] for protocol, _ in found} == set(
        PROTOCOLS if task.name == "lvis" else ["coco-ap100"]
    )
    for (_, metric), difference in found.items():
        if metric == "AP":
            assert difference.value > 0.1
            assert difference.ci95[0] <= difference.value <= difference.ci95[1]


def test_recall_counts_a_box_once_however_often_it_is_named(root, colours, tmp_path):
    class Chatty(ColourDetector):
        """Every box under every name, wrong ones first, and 400 times the same wrong box before all."""

        def detect(self, images, names, limit=300):
            found = []
            for one in super().detect(images, names, limit):
                boxes = np.concatenate(
                    [np.tile([[0.0, 0.0, 1.0, 1.0]], (400, 1)), np.repeat(one.boxes_xyxy, 4, axis=0)]
                )
                labels = np.concatenate([np.arange(400) % 4, np.tile(np.arange(4), len(one.labels))])
                found.append(Found(boxes, np.linspace(1, 0.1, len(boxes)), labels))
            return found

    results, _ = measured(root, tmp_path, Chatty(colours), Coco())
    assert value(results, AGNOSTIC, "AR") == pytest.approx(1.0)


def test_the_gallery_knows_found_misnamed_and_missed(root, colours, tmp_path):
    _, session = measured(root, tmp_path, ColourDetector(colours, skip=("blue",)), Coco())
    examples = session.report_inputs[0].examples
    shown = [examples.show(row) for row in range(len(examples.keys))]
    assert {one.answer for one, right in zip(shown, examples.right, strict=True) if not right} == {"nothing found here"}
    assert {one.truth for one, right in zip(shown, examples.right, strict=True) if not right} == {"blue"}


def test_bad_answers_of_a_model_are_refused():
    with pytest.raises(ValueError, match="expected finite boxes and scores, got NaN"):
        as_found([[0, 0, 1, float("nan")]], [0.5], [0])
    with pytest.raises(ValueError, match=r"expected \(N, 4\) boxes"):
        as_found(np.zeros((1, 4)), [0.5], [0, 1, 2])


def test_a_detector_gets_the_boxes_a_level_and_the_protocol_names_them(root, tmp_path, colours):
    more = Options(progress=False, boxes_an_image=7000, boxes_a_level=2500)
    results, _ = measured(root, tmp_path, ColourDetector(colours), Lvis(), more)
    named = {r.row.protocol for r in results}
    assert "lvis-fixed-ap/name/7000-boxes-an-image/2500-a-level" in named
    assert "lvis-ap300/name/2500-a-level" in named  # another number than usual is named everywhere

    class Asked:
        def detect(self, images, names, processor, **asked):
            self.asked = asked
            return [{"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0)} for _ in images]

    reading = ClocDetector.__new__(ClocDetector)
    reading.model, reading.processor, reading.batch_size, reading.boxes_a_level = Asked(), None, 2, 2500
    reading.detect([None], ["red"], 7000)
    assert reading.model.asked == {"limit": 7000, "threshold": 0.0, "per_level": 2500}
