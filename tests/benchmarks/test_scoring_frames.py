"""Files in another frame or with numbers as texts are refused or told; damaged ones are one line, no traceback."""

from __future__ import annotations

import contextlib
import copy
import json

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.scoring.command import ScoringRequest, score_files

WIDE, HIGH = 640, 480
SIDES = np.array([WIDE, HIGH, WIDE, HIGH], dtype=float)


def truth_of(images=20, each=6, seed=0):
    rng = np.random.default_rng(seed)
    entries = []
    for image in range(1, images + 1):
        for _ in range(each):
            span = rng.integers(20, 200, 2)
            low = rng.integers(0, np.array([WIDE, HIGH]) - span)
            box = [*low.tolist(), *span.tolist()]
            area = int(span.prod())
            kind = int(rng.integers(1, 4))
            entries.append({"id": len(entries) + 1, "image_id": image, "category_id": kind, "bbox": box, "area": area})
    return {
        "images": [{"id": k, "width": WIDE, "height": HIGH} for k in range(1, images + 1)],
        "annotations": entries,
        "categories": [{"id": k, "name": f"c{k}"} for k in (1, 2, 3)],
    }


def answers_to(truth):
    return [{k: one[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in truth["annotations"]]


def changed(entries, how, field="bbox"):
    return [{**one, field: how(np.array(one[field], dtype=float)).tolist()} for one in entries]


def to_corners(box):
    return np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])


ODD = {"none": None, "beyond": [600, 10, WIDE + 4, 100], "empty": [100.0, 100.0, 99.5, 150.0]}
FRAMES = {
    "corners": (to_corners, "fit as corners"),
    "shares": (lambda box: box / SIDES, "shares of the image"),
    "shares of corners": (lambda box: to_corners(box) / SIDES, "shares of the image"),
    "thousandths": (lambda box: box / SIDES * 1000, "0 to 1,000|thousandths|another size"),
    "thousandths of corners": (lambda box: to_corners(box) / SIDES * 1000, "thousandths|corners"),
    "a picture of 336": (lambda box: box / SIDES * 336, "far better"),
    "the longer side at 224": (lambda box: box / WIDE * 224, "far better"),
    "twice": (lambda box: box * 2, "far better|another size"),
    "y first": (lambda box: box[[1, 0, 3, 2]], "y, x, height, width"),
    "corners of 0 to 1,000 with y first": (
        lambda box: (to_corners(box) / SIDES * 1000)[[1, 0, 3, 2]],
        "thousandths|corners with y first",
    ),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", FRAMES)
def test_answers_in_another_frame_are_refused(name, odd, files):
    how, told = FRAMES[name]
    truth = truth_of()
    answers = changed(answers_to(truth), how)
    if ODD[odd]:
        answers[0]["bbox"] = ODD[odd]
    with pytest.raises(ValueError, match=told):
        score_files(ScoringRequest(*files(truth, answers)))


@pytest.mark.parametrize("name", ["corners", "shares", "shares of corners", "twice"])
def test_truth_in_another_frame_is_refused(name, files):
    how, told = FRAMES[name]
    truth = truth_of()
    there = {**truth, "annotations": changed(truth["annotations"], how)}
    with pytest.raises(ValueError, match=f"annotations: .*({told})"):
        score_files(ScoringRequest(*files(there, answers_to(truth))))


def lines_of(truth, sized):
    sizes = {"width": WIDE, "height": HIGH} if sized else {}
    return [
        {"image_id": one["image_id"], "sent_id": k, "bbox": to_corners(one["bbox"]).tolist(), **sizes}
        for k, one in enumerate(truth["annotations"])
    ]


def said_of(lines):
    return [{"image_id": one["image_id"], "sent_id": one["sent_id"], "pred_bbox_xyxy": one["bbox"]} for one in lines]


GROUNDED = {
    "xywh": (lambda box: np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]]), "fit as x, y, width, height"),
    "shares": (lambda box: box / SIDES, "shares of the image"),
    "thousandths": (lambda box: box / SIDES * 1000, "far better|thousandths|another size"),
    "a picture of 336": (lambda box: box / SIDES * 336, "far better"),
}


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("name", GROUNDED)
def test_grounding_answers_and_truth_in_another_frame_are_refused(name, sized, files):
    how, told = GROUNDED[name]
    lines = lines_of(truth_of(), sized)
    with pytest.raises(ValueError, match=told):
        score_files(ScoringRequest(*files(lines, changed(said_of(lines), how, "pred_bbox_xyxy"), lines=True)))
    if name in ("xywh", "shares"):
        with pytest.raises(ValueError, match=f"annotations: .*{told}"):
            score_files(ScoringRequest(*files(changed(lines, how), said_of(lines), lines=True)))


def test_poor_answers_are_poor_and_not_of_another_frame(files):
    truth, rng = truth_of(), np.random.default_rng(1)
    answers = changed(answers_to(truth), lambda box: rng.uniform(0, 0.5, 4) * SIDES)
    row = score_files(ScoringRequest(*files(truth, answers)))[0]
    assert row.value < 0.1
    assert "far better" not in (row.reason or "")
    lines = lines_of(truth, True)
    guessed = changed(said_of(lines), lambda box: np.array([0, 0, WIDE / 2, HIGH / 2]), "pred_bbox_xyxy")
    assert score_files(ScoringRequest(*files(lines, guessed, lines=True)))[0].value < 0.5


def test_numbers_as_texts_are_numbers(files):
    truth = truth_of()
    due = score_files(ScoringRequest(*files(truth, answers_to(truth)[::2])))
    texts = json.loads(json.dumps(truth))
    for one in texts["annotations"]:
        one |= {"image_id": str(one["image_id"]), "category_id": float(one["category_id"]), "iscrowd": "0"}
        one |= {"ignore": "false", "bbox": [str(value) for value in one["bbox"]], "area": str(one["area"])}
    for one in texts["images"]:
        one |= {"id": f" {one['id']} ", "width": str(WIDE)}
    answers = [{**one, "image_id": str(one["image_id"]), "score": "0.9"} for one in answers_to(truth)[::2]]
    assert [row.value for row in score_files(ScoringRequest(*files(texts, answers)))] == [row.value for row in due]


def test_a_text_of_zero_is_no_crowd(files):
    truth = truth_of()
    wrong = [{**one, "bbox": [0, 0, 5, 5]} if k % 2 else one for k, one in enumerate(answers_to(truth))]
    due = score_files(ScoringRequest(*files(truth, wrong)))[0].value
    for zero in ("0", "false", 0.0, None, ""):
        half = [{**one, "iscrowd": zero} if k % 2 else one for k, one in enumerate(truth["annotations"])]
        assert score_files(ScoringRequest(*files({**truth, "annotations": half}, wrong)))[0].value == due
    crowds = [{**one, "iscrowd": "1"} if k % 2 else one for k, one in enumerate(truth["annotations"])]
    assert score_files(ScoringRequest(*files({**truth, "annotations": crowds}, wrong)))[0].value != due


def test_what_stands_there_twice_is_told(files):
    truth = truth_of()
    answers = answers_to(truth)
    row = score_files(ScoringRequest(*files(truth, answers + answers[:7])))[0]
    assert "7 answers that stand there twice" in row.reason
    twice = {**truth, "annotations": truth["annotations"] + truth["annotations"][:3]}
    assert "3 annotated boxes that stand there twice" in score_files(ScoringRequest(*files(twice, answers)))[0].reason


ODD_VALUES = (None, True, "x", [], {}, -1, 1e400, float("nan"), 10**30, "1" * 400, 1.5, "\ud83d", [[1]], "")


@pytest.mark.parametrize("place", ["images", "annotations", "categories", "answers", "lines", "said"])
def test_damaged_files_are_one_line(place, files):
    truth = truth_of(2, 2)
    lines = lines_of(truth, True)
    content = {**{k: truth[k] for k in ("images", "annotations", "categories")}, "answers": answers_to(truth)}
    content |= {"lines": lines, "said": said_of(lines)}
    grounding = place in ("lines", "said")
    for field in content[place][0]:
        for odd in ODD_VALUES:
            broken = copy.deepcopy(content)
            broken[place][1][field] = odd
            pair = ("lines", "said") if grounding else (None, "answers")
            there = broken["lines"] if grounding else {k: broken[k] for k in ("images", "annotations", "categories")}
            predictions, annotations = files(there, broken[pair[1]], lines=grounding)
            with contextlib.suppress(ValueError):  # anything else would be a traceback
                assert score_files(ScoringRequest(predictions, annotations))


DAMAGED = [
    b"",
    b"[",
    b"{}",
    b"null",
    b"3",
    b"[" * 5000,
    b'{"images": ' + b"[" * 100_000,
    b"\xff\xfe\x00",
    b"[1, 2]",
    b"[null]",
]
DAMAGED += [
    b'{"images": {}, "annotations": [], "categories": []}',
    b'{"images": [1], "annotations": [2], "categories": [3]}',
]
DAMAGED += [
    b'[{"image_id": 1' + b"0" * 5000 + b"}]",
    b'"text"',
    b'{"question_id": 1, "label": "yes"}',
    b'{"question_id": 1}',
]


@pytest.mark.parametrize("raw", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_bytes_end_with_one_line(raw, files, tmp_path, capsys):
    truth = truth_of(3, 2)
    for answers, there in ((files(truth, [])[0], None), (None, files(truth, [])[1])):
        broken = tmp_path / "broken.json"
        broken.write_bytes(raw)
        both = (answers or broken, there or broken)
        code = main(["--predictions", str(both[0]), "--annotations", str(both[1]), "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        assert code in (0, 2)
        assert len(said.err.strip().splitlines()) == (code == 2), said.err


@pytest.mark.parametrize("which", ["annotations", "predictions"])
def test_a_part_in_another_frame_is_told_with_its_share(which, files):
    """Three in ten: too few to refuse the file, too many for silence."""
    truth = truth_of()
    answers = answers_to(truth)
    part = truth["annotations"] if which == "annotations" else answers
    for one in part[: len(part) * 3 // 10]:
        one["bbox"] = [300, 200, 400, 300]
    row = score_files(ScoringRequest(*files(truth, answers)))[0]
    assert f"36 boxes of the {which} (30%) end outside their image or have no area" in row.reason


@pytest.mark.parametrize("which", ["bbox", "pred_bbox_xyxy"])
def test_a_part_of_grounding_in_another_frame_is_told(which, files):
    entries = [{"sent_id": k, "image_id": k, "width": WIDE, "height": HIGH, "bbox": [9, 9, 99, 99]} for k in range(20)]
    told = [{"sent_id": k, "image_id": k, "pred_bbox_xyxy": [9, 9, 99, 99]} for k in range(20)]
    for one in (entries if which == "bbox" else told)[:5]:
        one[which] = [300, 200, 1000, 700]
    row = score_files(ScoringRequest(*files(entries, told, lines=True)))[0]
    assert "5 boxes of the" in row.reason
    assert "(25%) end outside" in row.reason


@pytest.mark.parametrize(("ids", "start"), [((1, 3, 4), 0), ((1, 2, 3), 0), ((2, 5, 9), 1)])
def test_categories_counted_instead_of_named_by_their_ids_are_refused(ids, start, files):
    """COCO's 80 categories have ids up to 90, and trainers count them from 0."""
    truth = truth_of()
    for one in (*truth["categories"], *truth["annotations"]):
        name = "id" if "name" in one else "category_id"
        one[name] = ids[one[name] - 1]
    answers = answers_to(truth)
    assert score_files(ScoringRequest(*files(truth, answers)))[0].value == pytest.approx(1.0)
    for one in answers:
        one["category_id"] = ids.index(one["category_id"]) + start
    if not {one["category_id"] for one in answers} & set(ids):
        with pytest.raises(ValueError, match="none of 120 is of an image and a category"):
            score_files(ScoringRequest(*files(truth, answers)))
        return
    with pytest.raises(ValueError, match=f"counted from {start}, the category_ids of the surest answers are right"):
        score_files(ScoringRequest(*files(truth, answers)))


def test_a_detector_that_confuses_its_categories_is_only_poor(files):
    truth = truth_of()
    answers = answers_to(truth)
    for one in answers:
        one["category_id"] = {1: 3, 2: 1, 3: 1}[one["category_id"]]
    assert score_files(ScoringRequest(*files(truth, answers)))[0].value < 0.1
