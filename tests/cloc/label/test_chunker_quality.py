"""The measure of a chunker, by hand; and the floor that ours keeps on the sample's COCO captions."""

import json

import pytest

from cloc.label.chunker_quality import coco_pairs, forms, is_junk, main, measure
from cloc.phrases import noun_phrases


def test_recall_and_junk_by_hand():
    """Mentioned: dog (found), stop sign (at the end of a phrase: found), person (`people` is in no phrase: missed)."""
    pairs = [("two dogs and people", {"dog", "person", "cat"}), ("A red stop sign.", {"stop sign"}), ("", {"cat"})]
    answers = {"two dogs and people": ("dogs", "running", "of"), "A red stop sign.": ("red stop sign",), "": ()}
    found = measure(pairs, lambda caption, limit: answers[caption])
    assert (found.captions, found.phrases, found.mentioned, found.recalled, found.junk) == (3, 4, 3, 2, 2)
    assert (found.recall, found.junk_rate) == (pytest.approx(2 / 3), 0.5)
    assert found.missed == {"person": 1}
    assert measure([], noun_phrases).recall == 0.0


@pytest.mark.parametrize("phrase", ["123", "quickly", "man eating", "of", "the"])
def test_what_can_be_no_thing(phrase):
    assert is_junk(phrase)


@pytest.mark.parametrize("phrase", ["dog", "tall building", "family", "bed", "wing"])
def test_what_can_be_a_thing(phrase):
    assert not is_junk(phrase)


def test_forms_of_a_name():
    assert forms("bus") == ("bus", "buses")
    assert forms("computer mouse") == ("computer mouse", "computer mice")
    assert "people" in forms("person")


def test_the_command_measures_files_and_tells_mistakes(tmp_path, capsys):
    boxes = {
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 7}],
    }
    captions = {"annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "not annotated"}]}
    for name, content in {"boxes": boxes, "captions": captions, "other": []}.items():
        (tmp_path / name).write_text(json.dumps(content))
    command = ["--captions", str(tmp_path / "captions"), "--instances", str(tmp_path / "boxes")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "captions: 1, phrases: 1 (1.00 each)" in told
    assert "recall of mentioned categories: 1.0000 (1 of 1)" in told
    assert main([*command[:3], str(tmp_path / "other")]) == 2
    assert "expected COCO's captions_*.json and instances_*.json" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "nothing")]) == 2
    assert "expected COCO's captions_*.json" in capsys.readouterr().err


@pytest.mark.photos
@pytest.mark.parametrize(("split", "captions"), [("train2017", 500), ("val2017", 370)])
def test_rules_find_what_people_wrote_about_photos(sample_data, split, captions):
    folder = sample_data / "coco" / "annotations"
    found = measure(coco_pairs(folder / f"captions_{split}.json", folder / f"instances_{split}.json"), noun_phrases)
    assert found.captions == captions
    assert found.recall > 0.93
    assert found.junk_rate < 0.01
    assert 2.5 < found.phrases / found.captions < 4
