"""Intervals of AP: a draw of images gives what the evaluator gives on a file that holds them as often."""

import numpy as np
import pytest

from benchmarks.metrics import coco_ap, lvis_ap
from benchmarks.metrics.ap_resamples import ApTally, make_ap_tallies
from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.metrics.intervals import compare_paired, find_interval

IMAGES, CATEGORIES = 9, 4
EVERY = np.ones(CATEGORIES, dtype=bool)


def made(seed, missing=0.2):
    """A federated set with crowds, ignored boxes, equal scores and a category without a box; answers near its boxes."""
    rng = np.random.default_rng(seed)
    count, found = 40, 160
    boxes = rng.uniform((0, 0, 8, 8), (200, 200, 130, 130), (count, 4)).round(1)
    images, categories = rng.integers(0, IMAGES, count), rng.integers(0, CATEGORIES - 1, count)
    pairs = np.arange(IMAGES * CATEGORIES)
    truth = DetectionTruth(
        image_ids=np.arange(IMAGES) + 5,
        sizes=np.full((IMAGES, 2), 400),
        category_ids=np.arange(CATEGORIES) + 2,
        frequencies=np.array(["r", "c", "f", "f"]),
        images=images,
        categories=categories,
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        ignored=rng.random(count) < 0.1,
        crowd=rng.random(count) < 0.1,
        negative_pairs=rng.choice(pairs, 8, replace=False),
        open_pairs=rng.choice(pairs, 6, replace=False),
    )
    of = rng.integers(0, count, found)
    answers = Detections(
        images[of],
        np.where(rng.random(found) < missing, rng.integers(0, CATEGORIES, found), categories[of]),
        (boxes[of] + rng.uniform(-7, 7, (found, 4))).clip(1).round(2),
        _different_on_an_image(images[of]),
    )
    return truth, answers


def _different_on_an_image(images):
    """Scores that many images share, each once: of equal ones on one image, copies would not stand together."""
    return np.array([1 - 0.01 * int((images[:place] == image).sum()) for place, image in enumerate(images)])


def copies(rows, drawn):
    """Every row as often as its image was drawn, and the image of each copy: copies of an image stand together."""
    starts = np.cumsum(drawn) - drawn
    pairs = [(row, starts[image] + k) for row, image in enumerate(rows) for k in range(drawn[image])]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def spread(pairs, drawn):
    """Pairs c * I + i of the copies."""
    category, image = np.divmod(pairs, IMAGES)
    row, copy = copies(image, drawn)
    return category[row] * drawn.sum() + copy


def again(truth, answers, drawn):
    """The plain way: a set that holds each image as often as it was drawn."""
    boxes, images = copies(truth.images, drawn)
    total = int(drawn.sum())
    twice = DetectionTruth(
        np.arange(total), np.full((total, 2), 400), truth.category_ids, truth.frequencies, images,
        truth.categories[boxes], truth.boxes_xywh[boxes], truth.areas[boxes], truth.ignored[boxes], truth.crowd[boxes],
        spread(truth.negative_pairs, drawn), spread(truth.open_pairs, drawn),
    )  # fmt: skip
    rows, where = copies(answers.images, drawn)
    return twice, Detections(where, answers.categories[rows], answers.boxes_xywh[rows], answers.scores[rows])


def lvis(truth, answers, protocol="lvis-ap300"):
    return lvis_ap.LvisJudge(truth, answers).curves(protocol)


@pytest.mark.parametrize("curves", [lvis, coco_ap.CocoCurves], ids=["lvis", "coco"])
@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_the_official_figure_of_a_file_with_copies(curves, seed):
    truth, answers = made(seed)
    resamples = curves(truth, answers).resamples()
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.ones(IMAGES), *(rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES)) for _ in range(3))])
    for row, draw in enumerate(drawn.astype(np.int64)):
        for chosen in (EVERY, np.array([True, False, True, True])):
            expected = curves(*again(truth, answers, draw)).figures(chosen)
            found = make_ap_tallies(curves(truth, answers).figures(chosen), resamples, chosen, truth.frequencies)
            assert set(found) <= {"AP", "AP50", "AP75", "APr", "APc", "APf"}
            for name, tally in found.items():
                value = tally.draws(drawn)[row]
                told = np.nan if expected[name] is None else expected[name]
                assert value == pytest.approx(told, abs=1e-6, nan_ok=True), (name, draw)


@pytest.mark.parametrize("curves", [lvis, coco_ap.CocoCurves], ids=["lvis", "coco"])
def test_nothing_found_nothing_right_and_every_box_found(curves):
    truth, answers = made(0)
    drawn = np.ones((2, IMAGES))
    drawn[1, :4] = 0
    for share, value in ((slice(0), 0.0), (answers.categories == CATEGORIES - 1, 0.0)):
        assert curves(truth, answers.take(share)).resamples().of(drawn)[:, 0].tolist() == [[value] * 3] * 2
    exact = Detections(truth.images, truth.categories, truth.boxes_xywh, np.linspace(1, 0.5, len(truth.images)))
    perfect = curves(truth, exact).resamples().of(drawn)
    assert perfect[:, :3] == pytest.approx(1.0)
    assert np.isnan(perfect[:, 3]).all()  # a category without a box has no AP


def test_the_interval_holds_the_figure_and_a_paired_one_is_narrower():
    truth, better = made(1, missing=0.0)
    worse = Detections(better.images, made(1, missing=0.6)[1].categories, better.boxes_xywh, better.scores)
    one, other = (ApTally(found.figures()["AP"], found.resamples(), EVERY, "AP") for found in
                  (lvis(truth, better), lvis(truth, worse)))  # fmt: skip
    low, high = find_interval(one)
    assert low < one.value() < high
    found = compare_paired(one, other)
    assert found.value == one.value() - other.value() > 0
    assert found.clear_of_zero
    alone = (high - low) + np.subtract(*find_interval(other)[::-1])
    assert found.ci95[1] - found.ci95[0] < alone
    assert compare_paired(one, one).ci95 == (0.0, 0.0)


def test_a_figure_that_most_draws_do_not_have_has_no_interval():
    """A rare category with boxes on one of nine images is in two draws of three; with none of them in no draw."""
    truth, answers = made(2)
    curves = lvis(truth, answers)
    nowhere = ApTally(0.5, curves.resamples(), np.array([False, False, False, True]), "AP")
    assert find_interval(nowhere) is None
    assert find_interval(ApTally(0.5, curves.resamples(), EVERY, "AP")) is not None


def rare(rng, images=60, kinds=40):
    """A set of the same world each time: a long tail of categories, half of the boxes found among wrong answers."""
    tail = 1 / np.arange(1, kinds + 1)
    count, found = images * 3, images * 12
    owner, kind = rng.integers(0, images, count), rng.choice(kinds, count, p=tail / tail.sum())
    boxes = np.concatenate([rng.uniform(0, 300, (count, 2)), rng.uniform(20, 90, (count, 2))], axis=1)
    source, right = rng.integers(0, count, found), rng.random(found) < 0.2
    plain = np.zeros(count, dtype=bool)
    image, category = np.divmod(np.arange(images * kinds), kinds)
    truth = DetectionTruth(
        np.arange(images), np.full((images, 2), 400), np.arange(kinds), np.full(kinds, "c"), owner, kind, boxes,
        boxes[:, 2] * boxes[:, 3], plain, plain, category * images + image, np.zeros(0, dtype=np.int64),
    )  # fmt: skip
    where = np.where(right, owner[source], rng.integers(0, images, found))
    what = np.where(right, kind[source], rng.choice(kinds, found, p=tail / tail.sum()))
    moved = boxes[source] + np.where(right, rng.integers(-9, 9, found), 200)[:, None] * [1, 1, 0, 0]
    return truth, Detections(where, what, moved, rng.random(found))


def test_intervals_hold_the_figure_of_the_world_that_sets_are_drawn_from():
    """40 sets of one world: 95 % intervals around the figure hold its mean more often than percentiles of the draws."""
    rng = np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(60, size=60), minlength=60) for _ in range(100)])
    figures, inside = [], {"centred": [], "percentiles": []}
    for _ in range(40):
        curves = lvis(*rare(rng))
        tally = make_ap_tallies(curves.figures(), curves.resamples(), np.ones(40, dtype=bool))["AP"]
        figures.append(tally.figure)
        inside["centred"].append(np.nanpercentile(tally.resampled(drawn), [2.5, 97.5]))
        inside["percentiles"].append(np.nanpercentile(tally.draws(drawn), [2.5, 97.5]))
    truth = np.mean(figures)
    share = {name: np.mean([low <= truth <= high for low, high in found]) for name, found in inside.items()}
    assert share["centred"] >= 0.85
    assert share["percentiles"] < share["centred"]
