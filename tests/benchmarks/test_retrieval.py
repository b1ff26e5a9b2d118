import numpy as np
import pytest

from benchmarks.metrics.intervals import interval
from benchmarks.tasks import region_retrieval
from benchmarks.tasks.contract import Options
from benchmarks.tasks.region_retrieval import Pool, RegionRetrieval, chance, chosen_regions, recalls

QUIET = Options(progress=False)
TASK = RegionRetrieval()


def measure(root, predictor):
    (found,) = TASK.find([root])
    return TASK.run(predictor, found.load(), found, QUIET)


def scores(measured):
    return {(s.protocol.removeprefix("one-per-text-and-image/"), s.metric): s for s in measured.scores}


def test_perfect_answers(root, colours):
    found = scores(measure(root, colours.Reader()))
    assert len(found) == 12
    assert found["merged/region-to-text", "recall@1"].tally.value() == 1.0
    assert found["merged/text-to-region", "recall@1"].tally.value() == 1.0
    # 36 regions of 4 texts: each text that occurs n times shares its place n ways, and n * 1/n over 4 texts is 4
    plain = found["plain/region-to-text", "recall@1"].tally.value()
    assert plain == pytest.approx(4 / 36)


def test_plain_text_to_region_ranks_all_regions(root, colours):
    found = scores(measure(root, colours.Reader(shift=1)))
    assert found["merged/text-to-region", "recall@1"].tally.value() == 0.0
    assert found["plain/text-to-region", "recall@1"].tally.value() == 0.0


def test_chance_by_hand():
    pool = Pool(np.arange(3), np.arange(3), ["a", "b"], np.array([0, 0, 1]), np.eye(3), np.eye(2, 3))
    assert chance(pool, "region-to-text", "merged", 1) == 0.5
    assert chance(pool, "region-to-text", "plain", 1) == pytest.approx(1 / 3)
    # "a" has two of three regions, "b" one: mean of 2/3, 2/3, 1/3
    assert chance(pool, "text-to-region", "merged", 1) == pytest.approx(5 / 9)
    assert chance(pool, "text-to-region", "plain", 10) == 1.0


def test_guessing_reaches_chance(tmp_path, colours):
    measured = measure(colours.write(tmp_path, images=80), colours.Guesser(seed=2))
    for score in measured.scores:
        # the four texts have one vector each, so text-to-region guesses are too few to average out
        if "text-to-region" in score.protocol and "merged" in score.protocol:
            continue
        bounds = interval(score.tally)
        assert bounds[0] - 0.02 <= score.chance <= bounds[1] + 0.02, score.protocol + score.metric


def test_blocks_agree_with_one_product(monkeypatch):
    rng = np.random.default_rng(0)
    text_of = rng.integers(6, size=50)
    regions, texts = rng.normal(size=(50, 8)), rng.normal(size=(6, 8))
    pool = Pool(np.arange(50), np.arange(50), list("abcdef"), text_of, regions, texts)
    ways = [(d, c, k) for d in region_retrieval.DIRECTIONS for c in region_retrieval.COUNTINGS for k in (1, 5)]
    whole = [recalls(pool, *way) for way in ways]
    monkeypatch.setattr(region_retrieval, "_BLOCK", 7)
    for way, expected in zip(ways, whole, strict=True):
        assert recalls(pool, *way) == pytest.approx(expected)


def test_the_pool_takes_one_region_for_each_text_and_no_crowd(root):
    (found,) = TASK.find([root])
    image = found.load().images[0]
    texts = dict.fromkeys(range(1, 5), "thing")
    assert chosen_regions(image, texts) == [0]
    object.__setattr__(image, "crowd", np.array([True, False, False]))
    assert chosen_regions(image, texts) == [1]


def test_missing_photos_are_counted(tmp_path, colours):
    root = colours.write(tmp_path)
    (root / "coco" / "val2017" / f"{1:012d}.jpg").unlink()
    for score in measure(root, colours.Reader()).scores:
        assert score.skipped == {"photo missing": 3}
        assert score.tally.num_examples == 33


def test_no_photo_gives_a_reason(tmp_path, colours):
    root = colours.write(tmp_path, images=2)
    for photo in (root / "coco" / "val2017").iterdir():
        photo.unlink()
    measured = measure(root, colours.Reader())
    assert len(measured.scores) == 12
    assert all(s.tally is None and "none of the 2 photos can be used" in s.reason for s in measured.scores)


def test_self_check_passes():
    TASK.self_check()
