"""The made-up set of LVIS's size is what it says, at a hundredth of it; and a child's own memory is measured."""

import json

import pytest

from benchmarks.speed import scoring as scoring_speed
from benchmarks.speed.timing import measure_command


def test_a_small_set_is_scored_by_the_command_and_by_arrays(capsys):
    assert scoring_speed.main(["--images", "40", "--boxes", "30"]) == 0
    told = capsys.readouterr().out
    assert "40 images, 1,200 boxes, 1,203 categories" in told
    assert "for 3 protocols" in told
    assert "their intervals" in told


def test_answers_are_partly_right_and_files_are_official(tmp_path):
    truth_file, answers_file = scoring_speed.write_files(tmp_path, 20, 50)
    content, answers = json.loads(truth_file.read_text()), json.loads(answers_file.read_text())
    assert len(answers) == 1000
    assert len(content["annotations"]) == 20 * scoring_speed.BOXES
    for image in content["images"]:
        own = {one["category_id"] for one in content["annotations"] if one["image_id"] == image["id"]}
        assert not own & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= own


def test_a_child_is_measured_apart_from_its_parent():
    small = measure_command(["-c", "pass"])
    large = measure_command(["-c", "b = b'x' * 200_000_000"])
    assert large.peak_bytes - small.peak_bytes > 150e6
    assert min(small.seconds, large.seconds) > 0
    with pytest.raises(RuntimeError, match=r"failed with code 3"):
        measure_command(["-c", "import sys; sys.exit(3)"])
