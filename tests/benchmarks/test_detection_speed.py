"""The detection speed task: what its rows are made of, and that a small model goes through its measurements."""

from pathlib import Path

import pytest

from benchmarks.predictors.detector import ClocDetector
from benchmarks.predictors.hf_detectors import split_names
from benchmarks.speed import detection as speed
from benchmarks.speed import detection_memory as cost
from benchmarks.speed import detection_models as made
from benchmarks.speed.measurements import DETECTION_PARTS, MEASUREMENTS
from benchmarks.tasks.registry import find_tasks


def test_it_is_run_by_name_only():
    (task,) = find_tasks(["detection_speed"])
    assert task.name not in [one.name for one in find_tasks([])]
    assert {f"detection_speed_{part.name}" for part in DETECTION_PARTS} <= {one.name for one in MEASUREMENTS}
    task.self_check()
    assert [part.needs_model for part in task.parts] == [False] * 4


def test_rows_by_hand():
    seconds = {"ours": [2.0, 1.0], "owlv2": [3.0, 3.0], "grounding_dino_pass": [4.0, 6.0]}
    rows = {row.metric: row for row in speed.make_scores("s", seconds, {"ours": 7.0, "owlv2": 8.0}, 2)}
    assert rows["ours_seconds"].value == 1.5
    assert rows["owlv2_over_ours"].value == 2.25  # the median of 3/2 and 3/1
    assert rows["grounding_dino_pass_over_ours"].value == 4.0
    assert rows["grounding_dino_seconds"].value == 31 * 5.0
    assert rows["grounding_dino_over_ours"].value == 31 * 4.0
    assert "31-times-one-pass" in rows["grounding_dino_over_ours"].protocol
    assert rows["ours_text_seconds"].value == 7.0


def test_names_fill_31_passes_of_grounding_dino():
    class Tokenizer:
        def __call__(self, text, add_special_tokens):
            assert not add_special_tokens
            return {"input_ids": text.replace(".", " .").split()}

    names = made.make_names()
    assert len(set(names)) == 1203
    assert len(split_names(names, Tokenizer(), 256)) == made.NUM_PASSES


def test_a_measurement_that_fails_says_so(tmp_path):
    import sys

    with pytest.raises(RuntimeError, match=r"a measurement ended with 3: no memory"):
        cost._output([sys.executable, "-c", "import sys; sys.stderr.write('no memory'); sys.exit(3)"], tmp_path)


def test_memory_rows(monkeypatch):
    monkeypatch.setattr(made, "write_cloc", lambda folder, **widths: None)
    monkeypatch.setattr(cost, "_peak_mib", lambda folder, count: 1000.0 + count / 100)
    rows = cost.measure_memory("s", 1)
    extra = {row.protocol.split("-")[0]: row.value for row in rows if row.metric == "detection_extra_mib"}
    assert extra == pytest.approx({str(count): (count - 1) / 100 for count in cost.CONCEPTS[1:]})
    whole = [row.value for row in rows if row.metric == "all_logits_mib"]
    assert whole[-1] == pytest.approx(whole[0] * 20_000 / 1203)


def test_a_small_detector_of_the_task_detects(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "SHORT", 96)
    monkeypatch.setattr(made, "LONG", 160)
    made.write_cloc(Path(tmp_path), **cost.WIDTHS)
    detector = ClocDetector(Path(tmp_path), "cpu", 1)
    (found,) = detector.detect([made.make_photo()], made.make_names(40))
    assert len(found.scores) == 300
    assert found.boxes_xyxy.max() <= 160
    assert set(found.labels) <= set(range(40))
