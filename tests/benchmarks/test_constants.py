"""What never looking reaches stands beside every figure, and a model below it is not praised."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.comparison import compare
from benchmarks.metrics.answers import as_yes, is_undecided, is_yes, note_undecided, score_blind_yes, score_yes
from benchmarks.metrics.grounding import score_constants, score_hits, summarize_constants
from benchmarks.metrics.intervals import Tally
from benchmarks.metrics.lvis_ap import AP300, score_lvis
from benchmarks.metrics.proposals import make_constant_detections, score_constant_recall
from benchmarks.metrics.recall import score_constant_recalls
from benchmarks.report.page import Report, render_page
from benchmarks.rows import Row, ScoredRow
from benchmarks.scoring.command import ScoringRequest, score_files
from benchmarks.scoring.detections import read_truth
from benchmarks.table import format_comparison, format_rows, summarize
from benchmarks.tasks.contract import Options, Score
from benchmarks.tasks.fgovd import FgOvd
from benchmarks.tasks.flickr30k_grounding import Flickr30kGrounding, score_constant_overlaps
from benchmarks.tasks.registry import TASKS
from cloc.boxes import iou
from cloc.formats.flickr30k_grounding import Entity, EntityImage
from cloc.images import Placement

QUIET = Options(progress=False, photos_at_once=5)


@pytest.mark.parametrize(
    ("spelled", "right"),
    [(t, True) for t in ("yes", "Yes", "YES", "yes ", " y", "true", "True", "Yes.", True, 1, "1")]
    + [(t, False) for t in ("no", "No", "no\n", "n", "false", "FALSE", "No!", False, 0, "0")]
    + [(t, None) for t in ("maybe", "", "yes no", None, [], 2, "nope")],
)
def test_a_label_in_any_spelling(spelled, right):
    assert as_yes(spelled) is right


@pytest.mark.parametrize(
    ("answer", "yes", "open_"),
    [
        ("Yes", True, False),
        ("NO", False, False),
        ("No!", False, False),
        ("no\nThe image shows a dog.", False, False),
        (" Not really. Yes.", False, False),
        ("True", True, False),
        (
            "There is a cat.",
            True,
            True,
        ),  # POPE's rule takes it for a yes; the note says that it was none in so many words
        ("", True, True),
        ("I cannot tell", True, True),
        ("Yes, no doubt", False, True),
    ],
)
def test_an_answer_is_read_in_any_spelling_and_an_open_one_is_counted(answer, yes, open_):
    assert is_yes(answer) is yes
    assert is_undecided(answer) is open_
    assert note_undecided([answer, "yes"]).total() == open_


@pytest.mark.parametrize(
    "labels", [("yes", "no"), ("Yes", "No"), (True, False), ("yes ", "no "), ("TRUE", "False"), (1, 0)]
)
def test_perfect_answers_to_pope_are_perfect_however_the_labels_are_spelled(labels, files):
    asked = [{"question_id": k, "image": f"{k // 2}.jpg", "text": "a cat?", "label": labels[k % 2]} for k in range(40)]
    told = [{"question_id": k, "text": ("Yes", "No")[k % 2]} for k in range(40)]
    rows = {row.metric: row for row in score_files(ScoringRequest(*files(asked, told, lines=True)))}
    assert {rows[name].value for name in ("accuracy", "precision", "recall", "f1")} == {1.0}
    assert (rows["accuracy"].chance, rows["accuracy"].constant, rows["f1"].constant) == (0.5, 0.5, pytest.approx(2 / 3))
    assert rows["yes_ratio"].no_constant


def test_open_answers_and_odd_labels_are_told(files):
    asked = [{"question_id": k, "image": f"{k}.jpg", "text": "a cat?", "label": "yes"} for k in range(8)]
    told = [{"question_id": k, "text": "I cannot tell" if k < 3 else True} for k in range(8)]
    row = score_files(ScoringRequest(*files(asked, told, lines=True)))[0]
    assert row.value == 1.0
    assert "3 answers with neither yes nor no" in row.reason
    with pytest.raises(ValueError, match="expected label yes or no, got 'perhaps'"):
        score_files(ScoringRequest(*files([*asked[:7], {**asked[7], "label": "perhaps"}], told, lines=True)))


def test_a_coin_and_the_better_constant_of_popes_figures():
    true = [True] * 6 + [False] * 2
    blind = score_blind_yes(true)
    always = score_yes([True] * 8, true)
    assert {name: blind[name]["constant"] for name in ("precision", "recall", "f1")} == {
        name: pytest.approx(always[name]) for name in ("precision", "recall", "f1")
    }
    assert blind["accuracy"] == {"chance": 0.5, "constant": 0.75}


def test_a_figure_without_chance_and_constant_must_say_why():
    with pytest.raises(AssertionError, match="neither chance and constant nor why"):
        Score("val", "p", "m", value=0.5)
    with pytest.raises(AssertionError):
        Score("val", "p", "m", Tally.of([1], [1.0]), chance=0.5)
    assert Score("val", "p", "m", value=0.5, constant=0.1, no_constant="no chance").constant == 0.1


def detections_of(places, sizes, categories=1):
    """A set of one box an image."""
    images = [{"id": k, "width": w, "height": h} for k, (w, h) in enumerate(sizes, 1)]
    shares = np.asarray(places, dtype=float)
    boxes = [
        {"id": k, "image_id": k, "category_id": k % categories + 1, "iscrowd": 0}
        | {"bbox": [x * w, y * h, a * w, b * h], "area": a * w * b * h}
        for k, ((x, y, a, b), (w, h)) in enumerate(zip(shares.tolist(), sizes, strict=True), 1)
    ]
    kinds = [{"id": k + 1, "name": f"c{k}"} for k in range(categories)]
    return {"images": images, "annotations": boxes, "categories": kinds}


def test_a_detector_that_never_looks_finds_what_always_lies_in_one_place(files):
    sizes = [(100, 80), (60, 90), (200, 40), (64, 64)] * 3
    there = detections_of([(0.25, 0.25, 0.5, 0.5)] * 12, sizes)
    truth = read_truth(there)
    blind = make_constant_detections(truth)
    assert len(blind) == 12
    assert score_lvis(replace(truth, frequencies=np.array(["f"])), blind, AP300)["AP"] == pytest.approx(1.0)
    assert score_constant_recall(truth)["AR"] == 1.0
    rows = {row.metric: row for row in score_files(ScoringRequest(*files(there, [])))}
    assert (rows["AP"].value, rows["AP"].constant, rows["AP"].below_constant) == (0.0, pytest.approx(1.0), True)
    assert "below constant" in summarize(list(rows.values()))
    elsewhere = np.random.default_rng(0).uniform(0, 0.9, (12, 2))
    spread = read_truth(detections_of([(x, y, 0.05, 0.05) for x, y in elsewhere], sizes))
    assert score_constant_recall(spread)["AR"] < 0.2


def test_the_constant_of_a_set_without_boxes_is_no_answer():
    empty = read_truth(
        {"images": [{"id": 1, "width": 9, "height": 9}], "categories": [{"id": 1, "name": "c"}], "annotations": []}
    )
    assert len(make_constant_detections(empty)) == 0
    assert score_constant_recall(empty)["AR"] is None


def test_boxes_without_height_are_named(files):
    there = detections_of([(0.25, 0.25, 0.5, 0.5)] * 12, [(100, 80)] * 12)
    there["annotations"][3]["bbox"][3] = 0
    answers = [{"image_id": k, "category_id": 1, "bbox": [25, 20, 50, 40], "score": 0.5} for k in range(1, 13)]
    row = score_files(ScoringRequest(*files(there, answers)))[0]
    assert row.value < 1
    assert "1 annotated boxes without width or height, which no answer can reach" in row.reason
    lines = [{"image_id": k, "sent_id": k, "bbox": [5, 5, 25, 5 if k == 2 else 25]} for k in range(9)]
    told = [{"image_id": k, "sent_id": k, "pred_bbox_xyxy": line["bbox"]} for k, line in enumerate(lines)]
    row = score_files(ScoringRequest(*files(lines, told, lines=True)))[0]
    assert row.value == pytest.approx(8 / 9)
    assert "1 annotated boxes without width or height" in row.reason


def test_grounding_files_name_the_best_constant_box(files):
    lines = [{"image_id": k, "sent_id": k, "bbox": [5, 5, 25, 25] if k < 6 else [60, 60, 90, 90]} for k in range(8)]
    rows = {row.metric: row for row in score_files(ScoringRequest(*files(lines, [], lines=True)))}
    assert rows["acc@0.5"].constant == 0.75
    assert rows["acc@0.5"].chance == pytest.approx((6 * 5 + 2 * 1) / (8 * 7))
    assert rows["mean_iou"].constant == 0.75


def test_any_of_several_boxes_counts_for_a_constant_box():
    images = [EntityImage(k, None, (100, 100), ()) for k in range(4)]
    one = Entity(0, "a man", ((0.0, 0.0, 20.0, 20.0),))
    two = Entity(1, "two men", ((0.0, 0.0, 20.0, 20.0), (80.0, 80.0, 100.0, 100.0)))
    rows = [(images[0], one), (images[1], two), (images[2], one), (images[3], two)]
    merged, any_box = (score_constant_overlaps(rows, count) for count in ("merged-box", "any-box"))
    assert merged.shape == any_box.shape == (5, 4)
    assert merged[0].tolist() == [1.0, pytest.approx(0.04), 1.0, pytest.approx(0.04)]
    assert any_box[0].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert summarize_constants(score_hits(any_box, 0.5), [0, 1, 2, 3]).best == 1.0
    canvas = Placement(100, 50).to_canvas([[0.0, 0.0, 50.0, 25.0]])
    plain = iou(canvas, canvas)
    assert score_constants(canvas, None)[0].tolist() == plain[0].tolist()


def test_the_best_constant_ranking_covers_the_most_queries():
    right = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    assert score_constant_recalls(right, (1, 2, 5)) == [0.5, 0.75, 1.0]
    assert score_constant_recalls(right.T, (1,)) == [pytest.approx(1 / 3)]


def flickr(root):
    folder = root / "flickr30k"
    for name in ("Annotations", "Sentences", "flickr30k-images"):
        (folder / name).mkdir(parents=True)
    ids = range(1, 8)
    (folder / "test.txt").write_text("\n".join(map(str, ids)))
    for k in ids:
        box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
        size = "<size><width>40</width><height>30</height></size>"
        thing = f"<object><name>{k}</name>{box}</object>"
        (folder / "Annotations" / f"{k}.xml").write_text(f"<annotation>{size}{thing}</annotation>")
        (folder / "Sentences" / f"{k}.txt").write_text(f"[/EN#{k}/people A man] walks .\n")
        Image.new("RGB", (40, 30)).save(folder / "flickr30k-images" / f"{k}.jpg")
    return root


class Corner:
    """Always the same small box."""

    kind, name, cannot_ground = "encoder", "corner", None

    def ground(self, images, phrases):
        return [np.tile([0.0, 0.0, 4.0, 4.0], (len(own), 1)) for own in phrases]


def test_flickr30k_names_chance_and_the_best_constant_box(tmp_path):
    (found,) = Flickr30kGrounding().find([flickr(tmp_path)])
    measured = Flickr30kGrounding().run(Corner(), found.load(), found, QUIET)
    assert [(s.tally.value(), s.chance, s.constant) for s in measured.scores] == [(0.0, 1.0, 1.0)] * 2


def test_every_task_gives_chance_and_constant_or_says_why(colours, root):
    """What is there in the little world; each other task is asked in a test of its own, and `Score` refuses both."""
    asked = set()
    for task in TASKS:
        for found in task.find([root]) if task.runs_by_default else ():
            predictor = colours.Reader()
            if "encoder" not in task.kinds:
                continue
            measured = task.run(predictor, found.load(), found, QUIET)
            asked.add(task.name)
            for score in measured.scores:
                there = score.value is not None or score.tally is not None
                assert not there or score.no_constant or None not in (score.chance, score.constant), score
    assert {"region_recognition", "region_retrieval", "refcoco", "lvis"} <= asked
    assert FgOvd().runs_by_default


def row(value, constant=None, **more):
    facts = {"task": "refcoco", "dataset": "refcoco", "data": "real", "split": "val", "protocol": "phrase-box"}
    facts |= {"metric": "acc@0.5", "value": value, "constant": constant, "chance": None, "num_examples": 40}
    facts |= {"model": "a", "predictor": "p", "model_sha256": None, "commit": "c", "versions": {}, "machine": "m"}
    return Row(**{**facts, "seed": 0, "seconds": 0.0, **more})


def results(share_a, share_b, constant):
    found = []
    for side, share in enumerate((share_a, share_b)):
        tally = Tally.of(np.arange(400), (np.arange(400) < 400 * share) * 1.0)
        found.append(ScoredRow(row(tally.value(), constant, model="ab"[side]), tally, side))
    return found


def paired(compared):
    return render_page(Report(("a", "b"), [], compared))


def single(rows):
    return render_page(Report(("a",), rows))


def test_the_report_shows_the_constant_and_no_green_below_it():
    poor = compare(results(0.15, 0.05, 0.252))
    assert poor[0].difference.clear_of_zero
    html = paired(poor)
    assert '<th scope="col">constant</th>' in html
    assert html.index(">B<") < html.index(">constant<") < html.index(">A - B<")
    assert "0.252" in html
    assert 'class="clear"' not in html
    assert html.count("below constant") == 2
    good = paired(compare(results(0.45, 0.05, 0.252)))
    assert 'class="clear"' in good
    assert good.count("below constant") == 1
    assert 'class="clear worse"' in paired(compare(results(0.05, 0.15, 0.252)))
    assert "below constant" in single([row(0.072, 0.252)])
    assert "below constant" not in single([row(0.3, 0.252)])


def test_the_printed_table_shows_the_constant_beside_both():
    lines = format_comparison(compare(results(0.15, 0.05, 0.252))).splitlines()
    head = next(line for line in lines if "A - B" in line).split()
    assert head[3:6] == ["A", "B", "constant"]
    assert any("0.252" in line and "A below constant, B below constant" in line for line in lines)
    alone = format_rows([row(0.072, 0.252)])
    assert "below constant" in alone
    assert "no chance: x" in format_rows([row(0.3, 0.252, no_constant="no chance: x")])
    assert json.loads(json.dumps(row(0.3, 0.2).no_constant)) is None


def test_answers_that_choose_neither_or_both_are_told(files):
    said = ["a cup", "a dog", "I cannot say.", "a cup or a dog", "It is not a dog, but a cup."]
    entry = {"name": "cup", "synonyms": ["cup"], "neg_class": "dog", "image_path": "1.jpg"}
    lines = [{**entry, "id": number} for number in range(len(said))]
    told = [{"id": number, "answer": text} for number, text in enumerate(said)]
    row = score_files(ScoringRequest(*files(lines, told, lines=True)))[0]
    assert row.value == pytest.approx(3 / 5)
    assert "2 answers that name neither of the two, or both" in row.reason
