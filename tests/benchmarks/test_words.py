"""Answers in words: the rules, `pope`, `ferret_bench`, and a tiny MLLM through transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.data_roots import MARK
from benchmarks.metrics.answers import is_named, is_yes, remove_negations, score_relative, score_yes
from benchmarks.predictors.mllm import CONVENTIONS, MAX_NEW_TOKENS, TransformersMllm, find_box_format
from benchmarks.tasks.contract import Options
from benchmarks.tasks.ferret_bench import NO_JUDGE, FerretBench
from benchmarks.tasks.pope import Pope
from cloc.box_text import BoxTextFormat
from cloc.scenes import build
from mllm_bridge.hosts.tiny import make_tiny

QUIET = Options(progress=False, photos_at_once=3)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("It is a dog, not a cat.", "It is a dog,"),
        ("It is not a cat, but a dog.", "It is but a dog."),
        ("There is no cat. A dog.", "There is A dog."),
        ("It is not a cat", "It is not a cat"),  # no mark ends it: the rule keeps it
        ("A dog with a nose, ears.", "A dog with a ears."),  # the rule's known slip
    ],
)
def test_the_negation_rule_to_the_letter(text, left):
    assert remove_negations(text) == left


def test_a_name_or_a_synonym_counts():
    assert is_named("a fire engine", ["truck", "fire engine"])
    assert not is_named("It is not a truck, it is a car.", ["truck"])


@pytest.mark.parametrize(
    ("text", "yes"),
    [("Yes", True), ("No, there is none.", False), ("There is not. Yes.", False), ("It is. No.", True), ("Nope", True)],
)
def test_popes_rule(text, yes):
    assert is_yes(text) is yes


def test_popes_figures_by_hand():
    figures = score_yes([True, True, False, False], [True, False, True, False])
    assert figures == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.5}
    assert score_yes([False], [True]) == {"precision": None, "recall": 0.0, "f1": 0.0, "yes_ratio": 0.0}


class Sayer:
    """Says yes to even images."""

    kind, name, box_format = "mllm", "sayer", CONVENTIONS["0-1"]

    def answer(self, images, questions):
        return ["Yes." if np.asarray(image)[0, 0, 0] % 2 == 0 else "No, not here." for image in images]


def pope(root, count=8):
    (root / "pope").mkdir()
    (root / "coco" / "val2014").mkdir(parents=True)
    lines = []
    for number in range(count):
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / "coco" / "val2014" / name, "PNG")
        label = "yes" if number % 2 == 0 or number == 1 else "no"
        lines.append({"question_id": number, "image": name, "text": "Is there a cat in the image?", "label": label})
    (root / "pope" / "coco_pope_popular.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_pope_is_asked_and_scored(tmp_path):
    root = pope(tmp_path)
    (found,) = Pope().find([root])
    measured = Pope().run(Sayer(), found.load(), found, QUIET)
    told = {s.metric: s.tally.value() if s.tally else s.value for s in measured.scores}
    assert told == {"accuracy": 7 / 8, "precision": 1.0, "recall": 0.8, "f1": pytest.approx(8 / 9), "yes_ratio": 0.5}
    assert measured.scores[0].constant == 5 / 8
    assert len(measured.predictions) == 8
    (root / "coco" / "val2014" / f"COCO_val2014_{0:012d}.jpg").unlink()
    measured = Pope().run(Sayer(), found.load(), found, QUIET)
    assert measured.scores[0].skipped == {"photo missing": 1}


@pytest.mark.parametrize("place", ["pope", "coco", "."])
def test_a_mark_beside_questions_or_photos_says_that_they_are_rendered(tmp_path, place):
    root = pope(tmp_path, count=2)
    (found,) = Pope().find([root])
    real = Pope().run(Sayer(), found.load(), found, QUIET)
    (root / place / MARK).write_text("Rendered scenes.\n")
    marked = Pope().run(Sayer(), found.load(), found, QUIET)
    assert [(one.dataset, one.rendered) for one in (real, marked)] == [("pope", False), ("scenes-pope", True)]
    assert MARK == build.MARK


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '{"question_id": 1, "image": "a.jpg", "text": "?", "label": "maybe"}',
            "expected label yes or no, got 'maybe'",
        ),
        ('{"question_id": 1, "image": "a.jpg", "text": "?"}', "with label"),
        ("no json", "got text that is no JSON"),
        ("", "got an empty file"),
    ],
)
def test_popes_bad_files(tmp_path, line, told):
    root = pope(tmp_path)
    (root / "pope" / "coco_pope_popular.json").write_text(line)
    (found,) = Pope().find([root])
    with pytest.raises(ValueError, match=told):
        found.load()


@pytest.mark.photos
def test_ferret_bench_writes_what_a_judge_needs(sample_data):
    found = FerretBench().find([sample_data])
    assert [one.split for one in found] == ["refer_caption", "refer_reason", "ground_conv"]
    for one in found:
        measured = FerretBench().run(Sayer(), one.load(), one, QUIET)
        assert measured.scores[0].reason == NO_JUDGE
        assert all(line["reference"] and line["context"] and line["answer"] for line in measured.predictions)


def test_a_relative_score_by_hand():
    assert score_relative([[10, 5], [5, 5]]) == pytest.approx(100 * 10 / 15)


def test_places_in_words(tmp_path):
    box, size = (10, 20, 50, 100), (100, 200)
    assert find_box_format(None, None).write(box, size) == "[0.100, 0.100, 0.500, 0.500]"
    assert find_box_format(tmp_path, "0-1000").write(box, size) == "[100, 100, 500, 500]"
    assert find_box_format(tmp_path, "pixels").write(box, size) == "[10, 20, 50, 100]"
    BoxTextFormat("thousand", padded=True).save(tmp_path)
    assert find_box_format(tmp_path, None) == BoxTextFormat("thousand", padded=True)
    with pytest.raises(ValueError, match=r"--coordinates 0-1: .* declares thousand-padded; leave the option out"):
        find_box_format(tmp_path, "0-1")


def test_a_tiny_mllm_answers_alone_as_in_a_batch(spine_picture, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.predictors.mllm.MAX_NEW_TOKENS", 4)
    assert MAX_NEW_TOKENS > 4
    folder = make_tiny(tmp_path / "tiny")
    images = [spine_picture(40, 30), Image.new("RGB", (20, 20), (255, 0, 0))]
    questions = ["What is it?", "Is there a red square in the image, on the left of the ring?"]
    together = TransformersMllm(str(folder), "cpu", 2).answer(images, questions)
    alone = TransformersMllm(str(folder), "cpu", 1).answer(images, questions)
    assert together == alone
    assert len(together) == 2
