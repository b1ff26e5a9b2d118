import json

import numpy as np
import pytest

from benchmarks.comparison import compare, list_one_sided
from benchmarks.predictors.contract import LoadedModel
from benchmarks.provenance import Provenance
from benchmarks.rows import Row
from benchmarks.runner import TaskRunner
from benchmarks.table import format_comparison, format_rows
from benchmarks.tasks.contract import Options
from benchmarks.tasks.lvis import Lvis
from benchmarks.tasks.refcoco import RefCoco
from benchmarks.tasks.region_recognition import RegionRecognition

WHERE_FROM = Provenance("abc", {"torch": "2"}, "a machine", 0)
RENDERED = "rendered scenes: says nothing about real photographs"


def named(predictor, name):
    predictor.name = name
    return predictor


def test_without_a_comparison_there_is_no_table():
    assert format_comparison([]) == ""
    assert format_rows([]) == ""


@pytest.fixture(scope="module")
def sides(colours):
    """A is right on two of three regions; B has readings that are right on one, on none, and on one."""
    weak = [named(colours.Reader(first=1), "weak"), named(colours.Reader(shift=1), "wrong"), colours.Reader(first=1)]
    return [LoadedModel("a", "aa", [named(colours.Reader(first=2), "prompter")]), LoadedModel("b", "bb", weak)]


def run(folder, root, sides, tasks, roots=()):
    session = TaskRunner([root, *roots], sides, WHERE_FROM, Options(progress=False), folder)
    return session.run(tasks)


def test_the_best_reading_of_the_other_side_is_compared(tmp_path, root, sides):
    results = run(tmp_path, root, sides, [RegionRecognition()])
    assert [r.row.value for r in results if r.row.metric == "top1"] == pytest.approx([2 / 3, 1 / 3, 0.0, 1 / 3])
    top1 = compare(results)[0]
    assert top1.row.metric == "top1_difference"
    assert top1.row.value == pytest.approx(1 / 3)
    assert top1.row.ci95 == pytest.approx((1 / 3, 1 / 3))  # every image gives the same difference
    assert top1.difference.clear_of_zero
    assert top1.row.protocol == "gt-box/no-template/top1: prompter minus weak (best of 3)"
    assert (top1.row.model, top1.row.model_sha256) == ("a minus b", "aa minus bb")


def test_the_table_shows_both_sides_chance_and_the_mark(tmp_path, root, sides):
    text = format_comparison(compare(run(tmp_path, root, sides, [RegionRecognition()])))
    assert "A = a (prompter)   B = b" in text
    line = next(line for line in text.splitlines() if " top1 " in line)
    for part in ("0.667", "0.333", "weak (best of 3)", "+0.333", "[+0.333, +0.333]  *", "0.250", "36"):
        assert part in line
    assert RENDERED not in text


def test_what_one_side_cannot_do_is_a_row_with_the_reason(tmp_path, root, colours):
    class Encoder(colours.Reader):
        cannot_ground = "no box head"

    results = run(
        tmp_path,
        root,
        [LoadedModel("a", "", [colours.Reader()]), LoadedModel("b", "", [Encoder()])],
        [RefCoco("refcoco")],
    )
    rows = {c.row.protocol.split(":")[0] + c.row.split + c.row.metric: c.row for c in compare(results)}
    assert len(rows) == 12
    row = rows["phrase-box/xyxy-pixelsval/allmean_iou_difference"]
    assert (row.value, row.reason) == (None, "b: no box head")
    assert rows["candidates/nearest-regionval/allacc@0.5_difference"].value == 0.0
    alone = list_one_sided(compare(results))
    assert {(r.protocol, r.model, r.value) for r in alone} == {("phrase-box/xyxy-pixels", "a", 1.0)}
    assert format_rows(alone).splitlines()[-1] == "  b: no box head"  # it holds for all lines, so none is named


def test_rendered_figures_say_what_they_are(tmp_path, colours):
    root = colours.write(tmp_path / "data" / "scenes", rendered=True)
    sides = [LoadedModel("a", "aa", [colours.Reader()])]
    results = run(tmp_path, root.parent, sides, [RegionRecognition()], [root])
    assert {(r.row.dataset, r.row.data) for r in results} == {("scenes-coco", "rendered")}
    assert f"region_recognition on scenes-coco, rendered ({RENDERED})" in format_rows([r.row for r in results])


def test_real_data_comes_first_and_both_are_measured(tmp_path, root, colours):
    scenes = colours.write(tmp_path / "scenes", rendered=True)
    results = run(tmp_path, root, [LoadedModel("a", "aa", [colours.Reader()])], [RegionRecognition()], [scenes])
    assert [r.row.data for r in results] == ["real", "real", "rendered", "rendered"]
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert names == ["region_recognition-coco-val-a-reader.jsonl", "region_recognition-scenes-coco-val-a-reader.jsonl"]


def test_predictions_of_two_models_with_one_name_do_not_overwrite_each_other(tmp_path, root, colours):
    sides = [LoadedModel("same", "1", [colours.Reader()]), LoadedModel("same", "2", [colours.Reader(shift=1)])]
    run(tmp_path, root, sides, [RegionRecognition()])
    files = sorted((tmp_path / "predictions").iterdir())
    assert [path.name[-8:] for path in files] == ["-1.jsonl", "-2.jsonl"]
    first, second = (json.loads(path.read_text().splitlines()[0]) for path in files)
    assert first["predicted_category_ids"][0] != second["predicted_category_ids"][0]


def test_a_task_without_data_gives_a_row_with_the_places(tmp_path, sides):
    (result,) = run(tmp_path, tmp_path, sides[:1], [RefCoco("refcoco+")])
    assert isinstance(result.row, Row)
    assert (result.row.value, result.row.data) == (None, None)
    assert f"looked for {tmp_path / 'refcoco' / 'refcoco+'}" in result.row.reason
    assert "refcoco+: no data" in format_rows([result.row])


def test_a_reason_that_holds_for_some_lines_names_them(tmp_path, root, sides):
    text = format_rows([r.row for r in run(tmp_path, root, sides[:1], [Lvis()])])
    assert "  val/r top1, val/r class_mean: no example in this group" in text
    assert "  val AP: no detection heads" in text


def test_skips_are_counted_and_told(tmp_path, colours):
    root = colours.write(tmp_path)
    (root / "coco" / "val2017" / f"{1:012d}.jpg").unlink()
    results = run(tmp_path, root, [LoadedModel("a", "aa", [colours.Reader()])], [RegionRecognition()])
    row = results[0].row
    assert (row.num_examples, row.num_skipped, row.reason) == (33, 3, "skipped: 3 photo missing")
    assert "  skipped: 3 photo missing" in format_rows([row])


def test_a_box_cut_at_the_border_is_no_skip(tmp_path, colours):
    root = colours.write(tmp_path)
    file = root / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][2]["bbox"][2] = 99
    file.write_text(json.dumps(content))
    results = run(tmp_path, root, [LoadedModel("a", "aa", [colours.Reader()])], [RegionRecognition()])
    assert results[0].row.num_skipped == 0
    assert results[0].row.num_examples == 36


def test_every_metric_is_checked_before_anything_is_predicted(tmp_path, root):
    class Broken(RegionRecognition):
        def self_check(self):
            raise RuntimeError("self-check failed")

    class Never:
        name = "never"
        cannot_ground = None

        def encode_texts(self, texts):
            pytest.fail("a prediction was made before the check")

    with pytest.raises(RuntimeError, match="self-check failed"):
        run(tmp_path, root, [LoadedModel("a", "aa", [Never()])], [RefCoco("refcoco"), Broken()])


def test_intervals_are_the_same_every_time(tmp_path, root, sides):
    rows = [[r.row.ci95 for r in run(tmp_path, root, sides, [RegionRecognition()])] for _ in range(2)]
    assert rows[0] == rows[1]
    assert all(bounds is not None and np.isfinite(bounds).all() for bounds in rows[0])
