import json

import numpy as np
import pytest

from benchmarks.metrics.intervals import find_interval
from benchmarks.tasks.contract import Options
from benchmarks.tasks.refcoco import RefCoco

QUIET = Options(progress=False)
TASK = RefCoco("refcoco")


def measure(root, predictor, options=QUIET):
    (found,) = TASK.find([root])
    return TASK.run(predictor, found.load(), found, options)


def scores(measured):
    return {(s.split, s.protocol, s.metric): s for s in measured.scores}


@pytest.mark.parametrize(("publisher", "named"), [("unc", "refcoco"), ("google", "refcoco-google")])
def test_splits_of_another_publisher_are_named(tmp_path, colours, publisher, named):
    folder = colours.write(tmp_path) / "refcoco" / "refcoco"
    (refs,) = folder.glob("refs(*")
    refs.rename(folder / f"refs({publisher}){refs.suffix}")
    (found,) = TASK.find([tmp_path])
    assert found.dataset == named
    assert TASK.run(colours.Reader(), found.load(), found, QUIET).dataset == named
    line = {"expression": "x", "img_path": "a.jpg"}
    (tmp_path / "lines" / "refcoco" / "annotations_only").mkdir(parents=True)
    file = f"lines/refcoco/annotations_only/REC_refcoco_{publisher}_val.jsonl"
    (tmp_path / file).write_text(json.dumps(line))
    assert [one.dataset for one in TASK.find([tmp_path / "lines"])] == [named]


def test_perfect_answers_score_exactly_one(root, colours):
    found = scores(measure(root, colours.Reader()))
    assert {key[0] for key in found} == {"val/name", "val/relational", "val/all"}
    assert len(found) == 3 * 4
    assert {s.tally.value() for s in found.values()} == {1.0}
    assert found["val/all", "candidates/nearest-region", "acc@0.5"].tally.num_examples == 72
    assert found["val/name", "candidates/nearest-region", "acc@0.5"].tally.num_examples == 36


def test_candidates_chance_and_constant(root, colours):
    score = scores(measure(root, colours.Reader()))["val/all", "candidates/nearest-region", "acc@0.5"]
    assert score.chance == pytest.approx(1 / 3)  # three disjoint objects, one is right
    assert score.constant == pytest.approx(1 / 3)  # the third place is the largest, in every image


def test_phrase_box_chance_and_constant(root, colours):
    score = scores(measure(root, colours.Reader()))["val/all", "phrase-box/xyxy-pixels", "acc@0.5"]
    assert score.constant == pytest.approx(1 / 3)  # any of the three places is right for a third
    assert score.chance == pytest.approx(1 / 3)


def test_permuted_labels_score_zero(root, colours):
    score = scores(measure(root, colours.Reader(shift=1)))["val/all", "candidates/nearest-region", "acc@0.5"]
    # shifted by one, a name meets another object's vector or none at all: then the first candidate is taken
    lines = measure(root, colours.Reader(shift=1)).predictions
    by_hand = np.mean([line["chosen_iou"] >= 0.5 for line in lines])
    assert score.tally.value() == pytest.approx(by_hand)
    assert score.tally.value() < 1 / 3


def test_guessing_reaches_chance(tmp_path, colours):
    measured = measure(colours.write(tmp_path, images=60), colours.Guesser(seed=4))
    for score in measured.scores:
        if score.metric != "mean_iou" and score.split == "val/all":
            low, high = find_interval(score.tally)
            assert low <= score.chance <= high, score.protocol


def test_a_reading_that_cannot_ground_gives_reasons(root, colours):
    class Encoder(colours.Reader):
        cannot_ground = "no box head"

    found = scores(measure(root, Encoder()))
    boxes = [s for s in found.values() if s.protocol.startswith("phrase-box")]
    assert len(boxes) == 9
    assert all(s.tally is None and s.reason == "no box head" for s in boxes)
    assert found["val/all", "candidates/nearest-region", "acc@0.5"].tally.value() == 1.0


def test_missing_photos_are_counted(tmp_path, colours):
    root = colours.write(tmp_path)
    next((root / "refcoco/images/mscoco/images/train2014").glob("*_000000000005.jpg")).unlink()
    for score in measure(root, colours.Reader()).scores:
        assert score.skipped == {"photo missing": 6 if score.split == "val/all" else 3}


def test_images_without_objects_have_no_candidates_but_a_box(tmp_path, colours):
    folder = tmp_path / "refcoco" / "annotations_only"
    written = colours.write(tmp_path)
    folder.mkdir()
    line = {"img_path": "COCO_train2014_000000000001.jpg", "image_id": 1, "sent_id": 1, "split": "validation"}
    kinds = json.loads((written / "refcoco/refcoco/instances.json").read_text())["annotations"]
    name = colours.names[kinds[0]["category_id"] - 1]
    line |= {"expression": name, "bbox": list(colours.places[0]), "width": 40, "height": 30}
    (folder / "REC_refcoco_unc_val.jsonl").write_text(json.dumps(line) + "\n")
    for file in (written / "refcoco" / "refcoco").iterdir():
        file.unlink()
    (written / "refcoco" / "refcoco").rmdir()
    found = scores(measure(tmp_path, colours.Reader()))
    assert set(found) == {
        ("val", "candidates/nearest-region", "acc@0.5"),
        *(("val", "phrase-box/xyxy-pixels", metric) for metric in ("acc@0.5", "acc@0.75", "mean_iou")),
    }
    candidates = found["val", "candidates/nearest-region", "acc@0.5"]
    assert candidates.reason == "no annotated object on the image"
    assert candidates.skipped == {"no annotated object on the image": 1}
    assert found["val", "phrase-box/xyxy-pixels", "mean_iou"].tally.value() == 1.0


def test_limit_says_so(root, colours):
    measured = measure(root, colours.Reader(), Options(limit=3, progress=False))
    assert {s.protocol for s in measured.scores} == {
        "candidates/nearest-region/first-3-images",
        "phrase-box/xyxy-pixels/first-3-images",
    }
    assert measured.scores[-1].tally.num_examples == 18


def test_predictions_can_be_scored_again(root, colours):
    line = measure(root, colours.Reader()).predictions[0]
    assert set(line) == {
        "image_id", "sent_id", "expression", "chosen_annotation_id", "chosen_iou", "pred_bbox_xyxy", "iou",
    }  # fmt: skip
    assert line["pred_bbox_xyxy"] == list(map(float, colours.places[0]))


def test_self_check_passes():
    TASK.self_check()
