import numpy as np
import pytest

from benchmarks.metrics.intervals import MIN_IMAGES, Tally, compare_paired, find_interval, find_wilson_interval


def test_value_is_the_plain_mean_with_one_group():
    assert Tally.of([7, 7, 9], [1.0, 0.0, 1.0]).value() == pytest.approx(2 / 3)


def test_value_is_the_mean_over_groups_with_several():
    # group 0: 3 of 4 right, group 1: 0 of 1
    tally = Tally.of([1, 1, 2, 2, 3], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1])
    assert tally.value() == pytest.approx(0.375)
    assert (tally.num_examples, tally.num_images) == (5, 3)


def test_value_of_nothing_is_none():
    assert Tally.of([], []).value() is None


def test_weights_repeat_images_and_leave_out_groups_without_examples():
    tally = Tally.of([1, 2, 2], [1.0, 0.0, 1.0], [0, 0, 1])
    # image 1 alone: group 0 only; image 1 twice and image 2 once: group 0 is 2/3, group 1 is 1
    assert tally.values(np.array([[1.0, 0.0], [2.0, 1.0]])) == pytest.approx([1.0, (2 / 3 + 1) / 2])


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [([1], [1.0, 0.0], "one image id, value and group for each example"), ([1], [np.nan], "1 that are not")],
)
def test_bad_input_is_refused(ids, values, message):
    with pytest.raises(ValueError, match=message):
        Tally.of(ids, values)


def test_wilson_matches_the_published_example():
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662
    assert find_wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert find_wilson_interval(0, 20)[0] == 0.0
    assert find_wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="got 3 of 2"):
        find_wilson_interval(3, 2)


def test_bootstrap_agrees_with_the_normal_approximation_and_is_repeatable():
    values = np.tile([1.0, 0.0, 1.0, 1.0], 100)
    low, high = find_interval(Tally.of(np.arange(400), values), seed=3)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)
    assert find_interval(Tally.of(np.arange(400), values), seed=3) == (low, high)


def test_bootstrap_is_over_images_not_examples():
    values = np.tile([1.0, 0.0], 20)
    alone = find_interval(Tally.of(np.arange(40), values))
    # the same 40 values, each four times in its own image: no new information, so no narrower interval
    repeated = find_interval(Tally.of(np.repeat(np.arange(40), 4), np.repeat(values, 4)))
    assert repeated == pytest.approx(alone)


def test_all_right_does_not_give_a_certain_interval():
    low, high = find_interval(Tally.of(np.repeat(np.arange(10), 3), np.ones(30)))
    assert (low, high) == (find_wilson_interval(10, 10)[0], 1.0)
    assert low < 0.8


def test_too_few_images_carry_no_interval():
    few = Tally.of(np.arange(MIN_IMAGES - 1), np.ones(MIN_IMAGES - 1))
    assert find_interval(few) is None
    assert compare_paired(few, few).ci95 is None
    assert not compare_paired(few, few).clear_of_zero


def test_paired_difference_of_a_constructed_case():
    ids = np.arange(40)
    hard = np.tile([1.0, 0.0], 20)
    a, b = np.ones(40), hard  # A is right wherever B is, and on the other half
    found = compare_paired(Tally.of(ids, a), Tally.of(ids, b))
    assert found.value == 0.5
    assert found.clear_of_zero
    assert found.ci95[0] == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(40), abs=0.05)
    assert compare_paired(Tally.of(ids, b), Tally.of(ids, a)).value == -0.5


def test_pairing_takes_out_what_both_sides_share():
    ids = np.arange(200)
    shared = np.tile([1.0, 0.0], 100)  # half of the images are easy for both
    better = shared.copy()
    better[1:20:2] = 1.0  # ten more for A
    low, high = compare_paired(Tally.of(ids, better), Tally.of(ids, shared)).ci95
    assert low > 0
    alone = find_interval(Tally.of(ids, better))
    assert high - low < (alone[1] - alone[0]) / 2


def test_equal_sides_are_not_clear_of_zero():
    tally = Tally.of(np.arange(30), np.tile([1.0, 0.0, 0.0], 10))
    found = compare_paired(tally, tally)
    assert (found.value, found.ci95) == (0.0, (0.0, 0.0))
    assert not found.clear_of_zero


def test_pairs_must_be_the_same_examples():
    with pytest.raises(ValueError, match="same examples on both sides, got 2 examples on 2 images and 1 on 1"):
        compare_paired(Tally.of([1, 2], [1, 1]), Tally.of([1], [1]))
