"""The Python way in: models, tasks and data give the rows that the command writes."""

from dataclasses import replace

import pytest

from benchmarks.cli import main
from benchmarks.evaluate import Settings, evaluate
from benchmarks.predictors.contract import LoadedModel
from benchmarks.rows import read_rows
from benchmarks.tasks.region_recognition import RegionRecognition

CPU = Settings(device="cpu")


def without_clock(rows):
    return [replace(row, seconds=0.0, images_per_second=None) for row in rows]


def test_the_rows_are_those_of_the_command_and_nothing_is_written(root, exports, tmp_path, monkeypatch):
    names = ["--model", str(exports["cloc"]), "--against", str(exports["clip"]), "--device", "cpu"]
    assert main(["region_recognition", "--data", str(root), "--out", str(tmp_path / "out"), *names]) == 0
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    rows = evaluate([exports["cloc"], str(exports["clip"])], ["region_recognition"], root, CPU)
    assert without_clock(rows) == without_clock(read_rows(tmp_path / "out" / "results.json"))
    assert any(row.metric == "top1_difference" for row in rows)
    assert list((tmp_path / "empty").iterdir()) == []


def test_models_and_tasks_of_ones_own_are_taken_as_they_are(root, colours, tmp_path):
    shown = []
    model = LoadedModel("mine", None, [colours.Reader()])
    rows = evaluate([model], [RegionRecognition()], root, CPU, tmp_path, shown.append)
    assert {row.metric: row.value for row in rows} == {"top1": 1.0, "class_mean": 1.0}
    assert read_rows(tmp_path / "results.json") == rows
    assert (tmp_path / "report.html").is_file()
    assert "region_recognition on" in shown[-1]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["regon_recognition"], "did you mean 'region_recognition'"),
        (["odinw"], "no data for odinw under"),
    ],
)
def test_mistakes_are_said_before_a_model_is_loaded(root, tasks, message):
    with pytest.raises(ValueError, match=message):
        evaluate(["nowhere"], tasks, root, CPU)
