"""A file of answers scored alone: boxes for expressions, and answers in words; detection is in `test_scoring.py`."""

import json

import numpy as np
import pytest

from benchmarks.metrics.grounding import answer_iou
from benchmarks.scoring.command import ScoringRequest, score_files


def figures(rows, protocol=None):
    return {row.metric: row.value for row in rows if protocol in (None, row.protocol)}


def agree(found, expected):
    assert set(found) == set(expected)
    told = {name: -1.0 if value is None else value for name, value in found.items()}
    assert told == pytest.approx(expected, abs=1e-9, rel=0)


@pytest.mark.photos
def test_grounding_equals_the_given_figures(sample_data, tmp_path):
    folder = sample_data / "evaluators" / "rec"
    official = sample_data / "refcoco" / "annotations_only" / "REC_refcoco_unc_testB.jsonl"
    first = tmp_path / "first.jsonl"
    first.write_text("\n".join(official.read_text().splitlines()[:1000]))
    answers = folder / "refcoco_testB_first1000_preds.jsonl"
    expected = json.loads((folder / "refcoco_testB_first1000_expected.json").read_text())
    rows = score_files(ScoringRequest(answers, first))
    agree(figures(rows), {name: expected[name] for name in ("acc@0.5", "acc@0.75", "mean_iou")})
    assert all(row.split == "testB" and row.ci95[0] < row.value < row.ci95[1] for row in rows)
    longer = figures(score_files(ScoringRequest(answers, first, plus_one=True)), "phrase-box/xyxy-plus-one")
    assert longer["acc@0.5"] == expected["acc@0.5 with the refer toolkit +1 pixel convention"]
    whole = score_files(ScoringRequest(answers, official))
    assert whole[0].value == pytest.approx(734 / 5083)
    assert "4,083 expressions without an answer, counted as wrong" in whole[0].reason


def lines(count=8):
    return [
        {"image_id": n // 2, "sent_id": n, "bbox": [10.0, 10.0, 50.0, 40.0 + n], "expression": "cup", "split": "val"}
        for n in range(count)
    ]


def replies(truth):
    return [{"image_id": one["image_id"], "sent_id": one["sent_id"], "pred_bbox_xyxy": one["bbox"]} for one in truth]


def test_grounding_perfect_empty_and_with_gaps(files):
    truth = lines()
    assert set(figures(score_files(ScoringRequest(*files(truth, replies(truth), True)))).values()) == {1.0}
    assert set(figures(score_files(ScoringRequest(*files(truth, [], True)))).values()) == {0.0}
    some = replies(truth)[::-1][:-2]
    del some[0]["pred_bbox_xyxy"]
    some += [{"image_id": 9, "sent_id": 99, "pred_bbox_xyxy": [0, 0, 1, 1]}]
    row = score_files(ScoringRequest(*files(truth, some, True)))[0]
    assert (row.value, row.num_examples, row.num_skipped) == (5 / 8, 8, 1)
    assert "1 unknown_sent_id" in row.reason
    assert "1 answers without a box, counted as wrong" in row.reason
    assert "2 expressions without an answer, counted as wrong" in row.reason


def test_both_pixel_conventions_by_hand():
    assert answer_iou([[0, 0, 10, 10]], [[5, 0, 15, 10]])[0] == pytest.approx(50 / 150)
    assert answer_iou([[0, 0, 10, 10]], [[5, 0, 15, 10]], plus_one=True)[0] == pytest.approx(66 / 176)
    assert answer_iou([[10, 10, 0, 0], [np.nan] * 4], [[0, 0, 10, 10]] * 2).tolist() == [0.0, 0.0]


def test_wrong_grounding_is_refused(files):
    truth = lines()
    found = replies(truth)
    with pytest.raises(ValueError, match="expected each sent_id once, got 0 2 times"):
        score_files(ScoringRequest(*files(truth, [*found, found[0]], True)))
    with pytest.raises(ValueError, match="expected image_id 0 for sent_id 0, got 7"):
        score_files(ScoringRequest(*files(truth, [{**found[0], "image_id": 7}, *found[1:]], True)))
    with pytest.raises(ValueError, match="fit as x, y, width, height"):
        score_files(ScoringRequest(*files(truth, [{**one, "pred_bbox_xyxy": [90, 90, 5, 5]} for one in found], True)))
    with pytest.raises(ValueError, match="none of 8 sent_id"):
        score_files(ScoringRequest(*files(truth, [{**one, "sent_id": one["sent_id"] + 50} for one in found], True)))


def test_a_refer_folder_serves_as_annotations(root, files, tmp_path):
    folder = root / "refcoco" / "refcoco"
    refs = json.loads((folder / "refs(unc).json").read_text())
    boxes = {one["id"]: one["bbox"] for one in json.loads((folder / "instances.json").read_text())["annotations"]}
    answers = []
    for ref in refs:
        x, y, w, h = boxes[ref["ann_id"]]
        ids = {"image_id": ref["image_id"]}
        answers += [{**ids, "sent_id": s["sent_id"], "pred_bbox_xyxy": [x, y, x + w, y + h]} for s in ref["sentences"]]
    predictions = tmp_path / "answers.jsonl"
    predictions.write_text("\n".join(map(json.dumps, answers)))
    for named in (folder, folder / "refs(unc).json"):
        rows = score_files(ScoringRequest(predictions, named, split="val"))
        assert figures(rows) == {"acc@0.5": 1.0, "acc@0.75": 1.0, "mean_iou": 1.0}
        assert (rows[0].dataset, rows[0].split, rows[0].num_examples) == ("refcoco", "val", len(answers))
    assert score_files(ScoringRequest(predictions, folder))[0].split == "val"  # the only one there
    with pytest.raises(ValueError, match="holds val; got testA; name one of them"):
        score_files(ScoringRequest(predictions, folder, split="testA"))


WORDS = {
    "pope": (
        [{"question_id": n, "image": f"{n}.jpg", "text": "?", "label": "yes" if n < 3 else "no"} for n in range(4)],
        [{"question_id": n, "answer": "Yes." if n != 1 else "No."} for n in range(3)],
        {"accuracy": 0.5, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_ratio": 0.75},
    ),
    "reflvis": (
        [
            {"id": n, "image_path": "1.jpg", "name": "bow_tie", "synonyms": ["bow_(tie)"], "neg_class": "cat"}
            for n in range(4)
        ],
        [{"id": 0, "text": "a tie"}, {"id": 1, "text": "It is not a bow tie, a cat."}, {"id": 3, "text": "a bow"}],
        {"accuracy": 0.5},
    ),
    "ferret_bench": (
        [{"question_id": n, "image": "1.jpg", "category": "refer_desc", "text": "?"} for n in range(2)],
        [{"question_id": 0, "tuple": [10, 5]}, {"question_id": 1, "tuple": [6, 7]}],
        {"relative_score": 75.0},
    ),
}


@pytest.mark.parametrize("kind", WORDS)
def test_answers_in_words_are_scored_alone(files, kind):
    truth, answers, expected = WORDS[kind]
    judge = "somebody" if kind == "ferret_bench" else None
    rows = score_files(ScoringRequest(*files(truth, answers, True), judge=judge))
    assert figures(rows) == pytest.approx(expected)
    assert rows[0].task == kind
    if judge:
        assert rows[0].protocol == "relative-score/judge-somebody"
    else:
        assert "1 questions without an answer, counted as wrong" in rows[0].reason


def test_wrong_words_are_refused(files):
    truth, answers, _ = WORDS["ferret_bench"]
    with pytest.raises(ValueError, match="--judge: expected who wrote the reviews"):
        score_files(ScoringRequest(*files(truth, answers, True)))
    with pytest.raises(ValueError, match="1 of 2 questions have no review"):
        score_files(ScoringRequest(*files(truth, answers[:1], True), judge="x"))
    with pytest.raises(ValueError, match=r"expected tuple of two points above 0 and up to 10, got \[0, 5\]"):
        score_files(ScoringRequest(*files(truth, [{**answers[0], "tuple": [0, 5]}, answers[1]], True), judge="x"))
    truth, answers, _ = WORDS["pope"]
    with pytest.raises(ValueError, match="expected each question_id once, got 0 2 times"):
        score_files(ScoringRequest(*files(truth, [answers[0], answers[0]], True)))
    with pytest.raises(ValueError, match="none of 1 question_id is in the annotation file"):
        score_files(ScoringRequest(*files(truth, [{"question_id": 77, "answer": "Yes"}], True)))
    with pytest.raises(ValueError, match="--judge: belongs to reviews"):
        score_files(ScoringRequest(*files(truth, answers, True), judge="x"))
