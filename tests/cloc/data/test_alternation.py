"""One kind a step: a pure function of seed and step, whatever the workers, wherever it starts."""

import numpy as np
import pytest

from cloc.data.alternation import Alternation, compute_shares, make_schedule
from cloc.data.dataloader import make_loader


class Numbered:
    def __init__(self, name):
        self.name = name

    def batch(self, number):
        return self.name, number


KINDS = {"detection": Numbered("detection"), "pairs": Numbered("pairs")}
ODDS = {"detection": 3.0, "pairs": 1.0}


def all_batches(first=0, last=40, accumulation=1, workers=0):
    made = Alternation(KINDS, ODDS, 0, accumulation, first, last)
    return [tuple(batch) for batch in make_loader(made, workers)]


def test_kinds_come_by_their_odds_and_a_longer_run_begins_with_the_shorter():
    kinds = make_schedule(ODDS, 20_000, seed=1)
    assert np.bincount(kinds).tolist() == [15_000, 5_000]
    assert len({tuple(kinds[i : i + 50]) for i in range(0, 5_000, 50)}) > 90  # in random order
    assert sorted(np.bincount(make_schedule({"a": 1, "b": 1, "c": 1}, 100, seed=0))) == [33, 33, 34]
    assert (make_schedule(ODDS, 500, seed=1) == kinds[:500]).all()
    assert (make_schedule(ODDS, 500, seed=2) != kinds[:500]).any()
    assert set(make_schedule({"a": 0, "b": 1}, 100, seed=0)) == {1}


@pytest.mark.parametrize("start", [1, 50, 130, 1_999])
def test_a_kind_that_begins_later_is_never_drawn_before_and_has_its_share_from_then_on(start):
    kinds = make_schedule(ODDS, 2_000, seed=1, starts={"pairs": start})
    assert (kinds[:start] == 0).all()
    assert abs((kinds[start:] == 1).sum() - (2_000 - start) / 4) <= 1
    expected = compute_shares(ODDS, 2_000, {"pairs": start})
    assert np.allclose(np.bincount(kinds, minlength=2) / 2_000, list(expected.values()), atol=1 / 2_000)
    assert sum(expected.values()) == pytest.approx(1)
    assert (make_schedule(ODDS, 1_990, seed=1, starts={"pairs": start}) == kinds[:1_990]).all()


def test_starts_of_zero_change_nothing():
    assert (
        make_schedule(ODDS, 300, seed=1, starts={"detection": 0, "pairs": 0}) == make_schedule(ODDS, 300, seed=1)
    ).all()


def test_a_run_whose_first_step_has_no_kind_is_refused():
    with pytest.raises(ValueError, match=r"one above 0 that begins at step 0, got .*beginning at \[0, 5\]"):
        make_schedule({"detection": 0, "pairs": 1}, 10, seed=0, starts={"pairs": 5})


@pytest.mark.parametrize("odds", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}])
def test_odds_that_cannot_be_are_refused(odds):
    with pytest.raises(ValueError, match="expected weights of at least 0, one above 0"):
        make_schedule(odds, 10, seed=0)


def test_each_kind_counts_its_own_batches_without_a_gap():
    batches = all_batches()
    for name in KINDS:
        numbers = [number for kind, number in batches if kind == name]
        assert numbers == list(range(len(numbers)))
        assert numbers


def test_a_run_goes_on_exactly_where_it_stopped():
    assert all_batches(0, 17) + all_batches(17, 40) == all_batches(0, 40)


def test_workers_change_nothing():
    assert all_batches(accumulation=3, workers=2) == all_batches(accumulation=3)


def test_the_accumulated_batches_of_a_step_share_its_kind():
    batches = all_batches(accumulation=3)
    assert len(batches) == 120
    steps = [batches[i : i + 3] for i in range(0, 120, 3)]
    assert all(len({kind for kind, _ in step}) == 1 for step in steps)
    numbers = [number for kind, number in batches if kind == "pairs"]
    assert numbers == list(range(len(numbers)))
