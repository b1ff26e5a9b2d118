import numpy as np
import pytest

from benchmarks.metrics.accuracy import find_nearest, score_blind, score_top1
from benchmarks.metrics.grounding import score_constants, score_hits, summarize_constants
from benchmarks.metrics.recall import find_merged_chance, score_merged, score_single

WHOLE = [0.0, 0.0, 1.0, 1.0]


def test_top1_by_hand():
    answers = find_nearest([[0.1, 0.9, 0.3], [0.5, 0.2, 0.4]])
    assert answers.tolist() == [1, 0]
    assert score_top1(answers, [1, 2]).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"one answer for each example, got \(2,\) for \(1,\)"):
        score_top1(answers, [1])
    with pytest.raises(ValueError, match="C of at least 1"):
        find_nearest(np.zeros((2, 0)))


def test_blind_by_hand():
    found = score_blind([4, 4, 4, 9], num_candidates=10)
    assert (found.chance, found.constant_top1, found.constant_class_mean) == (0.1, 0.75, 0.5)
    with pytest.raises(ValueError, match="1 to 1 different classes, got 2"):
        score_blind([0, 1], num_candidates=1)


def test_merged_recall_by_hand():
    similarity = [[0.9, 0.8, 0.1, 0.0], [0.9, 0.8, 0.1, 0.0]]
    right = [[False, True, False, True], [False, False, True, False]]
    assert score_merged(similarity, right, 1).tolist() == [0.0, 0.0]
    assert score_merged(similarity, right, 2).tolist() == [1.0, 0.0]
    assert score_merged(similarity, right, 3).tolist() == [1.0, 1.0]
    # equal similarities of wrong entries count against the query
    assert score_merged([[0.5, 0.5]], [[True, False]], 1).tolist() == [0.0]
    with pytest.raises(ValueError, match="a query with none"):
        score_merged([[0.5]], [[False]], 1)


def test_single_recall_shares_places_between_equal_entries():
    similarity = [[0.9, 0.9, 0.1], [0.9, 0.2, 0.1]]
    assert score_single(similarity, [0, 2], 1).tolist() == [0.5, 0.0]
    assert score_single(similarity, [0, 2], 2).tolist() == [1.0, 0.0]
    assert score_single(similarity, [0, 2], 3).tolist() == [1.0, 1.0]


def test_merged_chance_by_hand():
    assert find_merged_chance(1, 4, 1) == 0.25
    assert find_merged_chance(2, 4, 2) == pytest.approx(1 - 1 / 6)
    assert find_merged_chance(1, 4, 10) == 1.0
    with pytest.raises(ValueError, match="1 to 4 right entries, got 0"):
        find_merged_chance(0, 4, 1)


def test_hits_at_the_threshold_count():
    assert score_hits([0.5, 0.4999, 1.0], 0.5).tolist() == [1.0, 0.0, 1.0]


def test_constant_box_by_hand():
    left, right = [0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0]
    ious = score_constants([left, left, left, right], [WHOLE] * 4)
    assert ious.shape == (5, 4)
    assert ious[0].tolist() == [1.0, 1.0, 1.0, 0.0]
    found = summarize_constants(score_hits(ious, 0.5), [1, 2, 3, 4])
    assert found.best == 0.75  # the left box
    # of the 12 pairs of different images, the 6 among the three left ones agree
    assert found.drawn == 0.5
    # two of the left ones share an image: 10 pairs, 4 agree
    assert summarize_constants(score_hits(ious, 0.5), [1, 1, 3, 4]).drawn == 0.4
    assert summarize_constants(score_hits(ious, 0.5), [1, 1, 1, 1]).drawn is None


def test_constant_boxes_are_cut_at_the_border_of_each_image():
    tall, square = [0.25, 0.0, 0.75, 1.0], WHOLE
    # the whole canvas is the referent of the square image; cut to the tall image it is that image's own extent
    ious = score_constants([square, tall], [square, tall])
    assert ious[0].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="at least one referent"):
        score_constants([], [])
