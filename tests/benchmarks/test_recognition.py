import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.metrics.intervals import find_interval
from benchmarks.tasks import region_recognition
from benchmarks.tasks.contract import Options
from benchmarks.tasks.lvis import Lvis
from benchmarks.tasks.region_recognition import RegionFit, RegionRecognition

QUIET = Options(progress=False)
TASK = RegionRecognition()


def measure(root, predictor, task=TASK, options=QUIET, change=lambda dataset: dataset):
    (found,) = task.find([root])
    return task.run(predictor, change(found.load()), found, options)


def values(measured):
    return {(s.split, s.metric): None if s.tally is None else s.tally.value() for s in measured.scores}


def test_perfect_answers_score_exactly_one(root, colours):
    measured = measure(root, colours.Reader())
    assert values(measured) == {("val", "top1"): 1.0, ("val", "class_mean"): 1.0}
    assert (measured.dataset, measured.rendered) == ("coco", False)
    assert [s.chance for s in measured.scores] == [0.25, 0.25]


def test_permuted_labels_score_zero(root, colours):
    assert values(measure(root, colours.Reader(shift=1))) == {("val", "top1"): 0.0, ("val", "class_mean"): 0.0}


def test_partly_right_answers_by_hand(root, colours):
    measured = measure(root, colours.Reader(first=2))  # the third region of every image is misnamed
    assert values(measured)["val", "top1"] == pytest.approx(2 / 3)
    lines = measured.predictions
    kinds = np.array([line["category_id"] for line in lines])
    right = np.array([line["predicted_category_ids"][0] == line["category_id"] for line in lines])
    by_class = np.mean([right[kinds == kind].mean() for kind in np.unique(kinds)])
    assert values(measured)["val", "class_mean"] == pytest.approx(by_class)


def test_guessing_reaches_chance(tmp_path, colours):
    measured = measure(colours.write(tmp_path, images=80), colours.Guesser(seed=1))
    for score in measured.scores:
        low, high = find_interval(score.tally)
        assert low <= score.chance <= high


def test_order_of_images_changes_nothing(root, colours):
    plain = measure(root, colours.Reader(first=2))
    turned = measure(root, colours.Reader(first=2), change=lambda d: replace(d, images=d.images[::-1]))
    assert values(plain) == values(turned)
    assert plain.predictions == turned.predictions


def test_missing_unreadable_and_foreign_photos_are_counted(tmp_path, colours):
    write = colours.write(tmp_path)
    photos = write / "coco" / "val2017"
    (photos / f"{1:012d}.jpg").unlink()
    (photos / f"{2:012d}.jpg").write_bytes(b"no image")
    (photos / f"{3:012d}.jpg").write_bytes((photos / f"{4:012d}.jpg").read_bytes())  # same size: goes unnoticed
    measured = measure(write, colours.Reader())
    top1 = measured.scores[0]
    assert top1.skipped == {"photo missing": 3, "photo unreadable": 3}
    assert top1.tally.num_examples == 30
    skipped = [line["skipped"] for line in measured.predictions if "skipped" in line]
    assert sorted(skipped) == ["photo missing"] * 3 + ["photo unreadable"] * 3


def test_a_photo_of_another_size_is_counted(tmp_path, colours):
    from PIL import Image

    write = colours.write(tmp_path)
    Image.new("RGB", (8, 8)).save(write / "coco" / "val2017" / f"{1:012d}.jpg")
    assert measure(write, colours.Reader()).scores[0].skipped == {"photo of another size than annotated": 3}


def test_no_photo_at_all_gives_a_reason_and_no_number(tmp_path, colours):
    write = colours.write(tmp_path, images=2)
    for photo in (write / "coco" / "val2017").iterdir():
        photo.unlink()
    for score in measure(write, colours.Reader()).scores:
        assert score.tally is None
        assert "none of the 2 photos can be used (photo missing: " in score.reason
        assert score.skipped == {"photo missing": 6}


def test_a_group_whose_photos_are_missing_does_not_blame_the_others(tmp_path, colours):
    root = colours.write(tmp_path, rendered=True, caption_only=("blue",))
    (found,) = TASK.find([root])
    dataset = found.load()
    blue = colours.names.index("blue") + 1
    for image in dataset.images:
        if blue in image.category_ids:
            image.path.unlink()
    scores = {s.split: s for s in TASK.run(colours.Reader(), dataset, found, QUIET).scores}
    assert scores["val/caption-only"].reason == "no example in this group"
    assert set(scores["val/caption-only"].skipped) == {"photo missing"}
    assert scores["val/boxed"].tally.value() == 1.0


def test_crowds_are_no_example_and_are_counted(root, colours):
    def crowd(dataset):
        first = replace(dataset.images[0], crowd=np.array([True, False, False]))
        return replace(dataset, images=(first, *dataset.images[1:]))

    score = measure(root, colours.Reader(), change=crowd).scores[0]
    assert score.skipped == {"crowd": 1}
    assert score.tally.num_examples == 35


def test_annotations_the_reader_dropped_are_counted(tmp_path, colours):
    write = colours.write(tmp_path)
    file = write / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [1, 1, float("nan"), 3]
    file.write_text(json.dumps(content))
    assert measure(write, colours.Reader()).scores[0].skipped == {"nan_box": 1}


def test_caption_only_categories_have_rows_of_their_own(tmp_path, colours):
    root = colours.write(tmp_path, rendered=True, caption_only=("blue",))
    measured = measure(root, colours.Reader(first=2))
    assert (measured.dataset, measured.rendered) == ("scenes-coco", True)
    counts = {s.split: s.tally.num_examples for s in measured.scores}
    assert list(counts) == ["val/boxed", "val/caption-only", "val/all"]
    assert counts["val/boxed"] + counts["val/caption-only"] == counts["val/all"] == 36
    assert {s.chance for s in measured.scores} == {0.25}  # all names are candidates in every group


def test_limit_takes_the_first_images_and_says_so(root, colours):
    score = measure(root, colours.Reader(), options=Options(limit=2, progress=False)).scores[0]
    assert score.tally.image_ids.tolist() == [1, 2]
    assert score.protocol == "gt-box/no-template/top1/first-2-images"


def test_small_batches_change_nothing(root, colours):
    whole = measure(root, colours.Reader(first=1))
    assert values(whole) == values(measure(root, colours.Reader(first=1), options=Options(None, 5, False)))


def test_lvis_by_frequency_with_an_empty_group(root, colours):
    measured = measure(root, colours.Reader(), task=Lvis())
    found = values(measured)
    assert (found["val/all", "top1"], found["val/f", "top1"], found["val/c", "class_mean"]) == (1.0, 1.0, 1.0)
    rare = [s for s in measured.scores if s.split == "val/r"]
    assert [s.reason for s in rare] == ["no example in this group"] * 2
    assert all(s.protocol.startswith("regions/") for s in measured.scores if s.metric != "AP")
    assert [s.reason for s in measured.scores if s.metric == "AP"] == [
        "no detection heads: region recognition is reported instead"
    ]


def test_lvis_asks_for_names_with_blanks(root, colours):
    class Listening(colours.Reader):
        def encode_texts(self, texts):
            self.asked = list(texts)
            return super().encode_texts(texts)

    predictor = Listening()
    measure(root, predictor, task=Lvis())
    assert predictor.asked == ["red", "green", "blue", "fire opal"]


def test_sample_files_never_carry_the_name_of_lvis(tmp_path, colours):
    lvis = colours.write(tmp_path) / "lvis"
    (lvis / "lvis_v1_val.json").rename(lvis / "lvis_v0.5_val_mini.json")
    assert [found.dataset for found in Lvis().find([tmp_path])] == ["lvis-v0.5-mini"]


def test_self_check_catches_a_broken_metric(monkeypatch):
    TASK.self_check()
    monkeypatch.setattr(region_recognition, "score_top1", lambda predicted, classes: np.ones(len(classes)))
    with pytest.raises(RuntimeError, match=r"self-check of region_recognition: top1: made-up rows gave 1\.0"):
        TASK.self_check()


def test_a_fit_reads_the_training_split_and_says_so(colours, tmp_path):
    root = colours.write(tmp_path / "root", images=4)
    assert RegionFit().find([root]) == []  # only val2017 is there
    annotations = root / "coco" / "annotations"
    (annotations / "instances_val2017.json").rename(annotations / "instances_train2017.json")
    (root / "coco" / "val2017").rename(root / "coco" / "train2017")
    measured = measure(root, colours.Reader(), RegionFit())
    assert values(measured)["train (a fit, no evaluation)", "top1"] == 1.0
    assert not RegionFit.runs_by_default
