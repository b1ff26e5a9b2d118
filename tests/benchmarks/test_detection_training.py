"""Rows of training speed and of the alignment's memory, and that small copies go through their measurements."""

import math

import pytest

from benchmarks.speed import alignment, timing
from benchmarks.speed import detection_training as training
from benchmarks.speed.detection_training import PassSeconds

SMALL = (
    *training.OVERRIDES,
    "model.embed_dim=16", "model.vision.width=8", "model.vision.heads=1", "model.vision.depths=[1,1,1,1]",
    "model.vision.window=2", "model.text.width=16", "model.text.layers=1", "model.text.heads=2",
    "model.detector.width=16", "model.detector.num_convs=1", "train.activation_checkpointing=false",
)  # fmt: skip


def test_rows_by_hand():
    found = {
        "detection": [PassSeconds(12.0, 6.0), PassSeconds(10.0, 5.0), PassSeconds(30.0, 5.0)],
        "pairs": [PassSeconds(8.0, 4.0), PassSeconds(4.0, 4.0), PassSeconds(8.0, 4.0)],
    }
    rows = {row.metric: row for row in training.make_scores("s", found, {"detection": 1, "pairs": 8}, "fp32/cpu")}
    assert rows["detection_images_per_second"].value == pytest.approx(1 / 12)
    assert rows["pairs_images_per_second"].value == 1.0
    assert rows["pairs_over_detection"].value == 20.0  # the median of 12/1, 10/0.5 and 30/1
    assert rows["pairs_over_detection_processor"].value == 10.0  # of 6/0.5, 5/0.5 and 5/0.5
    assert (
        "pairs-320-batch-8-4-texts-each/detection-1344x800-batch-1-150-names" in rows["pairs_over_detection"].protocol
    )
    assert "median-of-3-in-turn" in rows["pairs_images_per_second"].protocol


def test_a_small_copy_of_the_recipe_is_measured_and_stays_as_it_was(monkeypatch):
    monkeypatch.setattr(training, "OVERRIDES", SMALL)
    monkeypatch.setattr(training, "CANVAS", (96, 64))
    monkeypatch.setattr(training, "PAIRS_SIDE", 64)
    started, before = [], {}

    def start(*given):
        started.append(begin(*given))
        before.update({name: value.clone() for name, value in started[0].stepper.model.state_dict().items()})
        return started[0]

    begin = training.Trial.start
    monkeypatch.setattr(training.Trial, "start", start)
    rows = training.measure_training("s", 2)
    assert len(rows) == 6
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
    assert {row.num_examples for row in rows} == {2}
    model = started[0].stepper.model
    assert all(value.grad is None for value in model.parameters())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("concepts", [1, 40])
def test_both_ways_of_the_alignment_compute_the_same(concepts):
    chunked = alignment.measure("focal_alignment", concepts, 70)
    whole = alignment.measure("focal_alignment_plain", concepts, 70)
    assert chunked.loss == pytest.approx(whole.loss, rel=1e-4)


def test_alignment_rows_by_hand(monkeypatch):
    def made(name, concepts):
        return alignment.Cost(50 + concepts / 100 if name == "focal_alignment" else 2000.0, 1.5, 7.0)

    monkeypatch.setattr(alignment, "_apart", made)
    rows = {(row.metric, row.protocol.split("/")[0]): row.value for row in alignment.measure_alignment("s", 1)}
    assert rows["alignment_extra_mib", "20000-names"] == 250
    assert rows["alignment_mib_per_thousand_names", "1203-to-5000-names"] == pytest.approx(10)
    assert rows["alignment_mib_per_thousand_names", "5000-to-20000-names"] == pytest.approx(10)
    assert rows["alignment_memory_over_whole_matrix", "1203-names"] == pytest.approx(62.03 / 2000)
    assert rows["alignment_seconds", "5000-names"] == 1.5


def test_ways_that_disagree_are_refused(monkeypatch):
    monkeypatch.setattr(alignment, "_apart", lambda name, concepts: alignment.Cost(1.0, 1.0, float(len(name))))
    with pytest.raises(RuntimeError, match=r"the alignment in chunks is 15\.0, of the whole matrix 21\.0"):
        alignment.measure_alignment("s", 1)


def test_a_process_that_dies_is_named(monkeypatch):
    monkeypatch.setattr(timing, "_answer", None)
    with pytest.raises(RuntimeError, match="measured nothing_such with 3 names ended with 0"):
        alignment._apart("nothing_such", 3)
