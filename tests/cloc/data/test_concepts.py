"""Concepts: names, definitions, the nearest entry, category files."""

import json

import pytest

from cloc.data.concepts import ConceptDictionary, from_cards, read_categories
from cloc.text import concept_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Stop_Sign", "stop sign"),
        ("bow_(weapon)", "bow (weapon)"),  # LVIS has another bow
        ("High Heels/Boots", "high heels boots"),
    ],
)
def test_names_are_read_as_words(text, name):
    assert concept_name(text) == name


def test_a_known_name_has_its_own_definition_and_an_absent_one_its_nearest():
    entries = {"alarm clock": "A clock that wakes.", "cat": "an animal that purrs", "dog": ""}
    dictionary = ConceptDictionary(entries)
    assert dictionary.sentence("alarm_clock") == "alarm clock, a clock that wakes."
    assert dictionary.sentence("dog") == "dog"
    assert dictionary.sentence("alarm clocks") == "alarm clocks, a clock that wakes."
    assert dictionary.sentence("carburettor") == "carburettor"  # nothing is near enough
    assert ConceptDictionary(entries, nearest=2).sentence("alarm clocks") == "alarm clocks"


def test_a_dictionary_is_written_and_read_again(tmp_path):
    entries = {"cat": "an animal that purrs", "dog": ""}
    ConceptDictionary(entries).write(tmp_path / "d.json")
    assert ConceptDictionary.read(tmp_path / "d.json").definitions == entries


def test_category_files_of_every_kind(tmp_path):
    lists = [{"id": 1, "name": "cat", "def": "purrs"}, {"id": 2, "name": "dog"}]
    (tmp_path / "lvis.json").write_text(json.dumps(lists))
    (tmp_path / "coco.json").write_text(json.dumps({"categories": lists, "images": []}))
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    assert read_categories(tmp_path / "lvis.json") == [("cat", "purrs"), ("dog", "")]
    assert read_categories(tmp_path / "coco.json") == [("cat", "purrs"), ("dog", "")]
    assert read_categories(tmp_path / "names.txt") == [("cat", ""), ("dog", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["cat", "Cat "]', "1 category names occur twice (first: 'cat')"),
        ('["bow_tie", "cat", "bow tie"]', "1 category names occur twice (first: 'bow tie')"),
        ("[]", "expected category names, found none"),
        ('{"images": []}', "expected a list of categories"),
        ('[{"id": 3}]', "expected categories with a 'name', got {'id': 3}"),
        ("[{", "expected JSON"),
    ],
)
def test_a_bad_category_file_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match=r"c\.json") as told:
        read_categories(tmp_path / "c.json")
    assert message in str(told.value)


def test_a_category_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "c.txt").write_text("café", encoding="latin-1")
    with pytest.raises(ValueError, match=r"c\.txt: expected text in UTF-8"):
        read_categories(tmp_path / "c.txt")


def test_cards_come_before_further_files(tmp_path):
    (tmp_path / "more.json").write_text('[{"name": "cat", "definition": "x"}, {"name": "emu", "definition": "bird"}]')
    card = {"categories": [{"id": 1, "name": "cat", "definition": "purrs"}]}
    found = from_cards([None, card], [tmp_path / "more.json"])
    assert found.definitions == {"cat": "purrs", "emu": "bird"}


@pytest.mark.photos
def test_lvis_names_keep_their_own_definitions(sample_data):
    found = ConceptDictionary.read(sample_data / "lvis" / "lvis_v1_train_cat_info.json")
    assert found.sentence("aerosol_can").startswith("aerosol can, a dispenser that holds a substance under pressure")
    assert len(found) > 1100
