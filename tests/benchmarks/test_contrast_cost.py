"""What the region contrast costs: measured apart, both ways on the same regions."""

import os
import pickle

import pytest

from benchmarks.speed import contrast as contrast_cost
from benchmarks.speed import timing
from benchmarks.speed.contrast import Cost, measure, measure_contrast


def test_both_ways_see_the_same_regions_and_the_filter_has_work():
    whole, tiled = (measure(name, 200, 32) for name in ("contrast", "contrast_chunked"))
    assert whole.loss > 0.1
    assert whole.loss == pytest.approx(tiled.loss, rel=1e-5)
    assert whole.filtered == pytest.approx(tiled.filtered)
    assert 0.01 < whole.filtered < 0.1  # three of 199 share a phrase; half of them only the cosine finds
    assert min(whole.seconds, tiled.seconds) > 0


def test_rows_are_ratios_of_pairs(monkeypatch):
    costs = {"contrast": Cost(10.0, 400.0, 2.0, 0.1), "contrast_chunked": Cost(5.0, 20.0, 2.0, 0.1)}
    monkeypatch.setattr(contrast_cost, "_apart", costs.__getitem__)
    scores = {score.metric: score.value for score in measure_contrast("s")}
    assert scores["contrast_memory_over_whole_matrix"] == pytest.approx(0.05)
    assert scores["contrast_seconds_over_whole_matrix"] == pytest.approx(0.5)
    costs["contrast_chunked"] = Cost(5.0, 20.0, 2.1, 0.1)
    with pytest.raises(RuntimeError, match=r"the loss in tiles is 2\.1, of the whole matrix 2\.0"):
        measure_contrast("s")


def test_a_measurement_has_a_process_of_its_own(monkeypatch):
    """The child itself is asked for its number alone: it would import torch and transformers anew."""
    asked = []
    answer = lambda *call: asked.append(call) or measure("contrast", 50, 16)  # noqa: E731
    monkeypatch.setattr(contrast_cost, "call_in_process", answer)
    assert contrast_cost._apart("contrast_chunked").loss > 0
    ((what, needs, function, *arguments),) = asked
    assert (what, needs, pickle.loads(pickle.dumps(function))) == ("contrast_chunked", "memory for 6 GiB", measure)
    assert arguments == ["contrast_chunked", contrast_cost.REGIONS, contrast_cost.WIDTH]
    assert timing.call_in_process("a number", "nothing", os.getpid) != os.getpid()
