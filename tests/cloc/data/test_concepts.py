"""Concepts: names, definitions, look-up by words and head, category files."""

import json

import pytest

from cloc.data.concepts import ConceptDictionary, Entry, merge_cards, read_categories
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


ENTRIES = [
    Entry("alarm clock", "A clock that wakes."),
    Entry("cat", "an animal that purrs"),
    Entry("dog"),
    Entry("kitchen_sink", "a sink in a kitchen"),
    Entry("water heater", "a heater and tank"),
    Entry("battery", "a device that produces electricity"),
    Entry("kettle", "a metal pot", synonyms=("boiler",)),
    Entry("man", "an adult male"),
    Entry("pizza", "baked dough"),
    Entry("bow_(weapon)", "it shoots arrows"),
    Entry("bow_(decorative_ribbons)", "a knot of ribbon"),
    Entry("surfboard", "a board for waves"),
]


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("alarm_clock", "a clock that wakes."),
        ("Alarm-clocks", "a clock that wakes."),
        ("dog", ""),
        ("carburettor", ""),
        ("kitchen", ""),  # not the sink's: letters in common say nothing
        ("water", ""),
        ("batter", ""),
        ("clock", ""),
        ("a red kettle", "a metal pot"),
        ("steel boilers", "a metal pot"),
        ("two old men in hats", "an adult male"),
        ("the man's cat", "an animal that purrs"),
        ("a slice of pizza", "baked dough"),
        ("surf boards", "a board for waves"),
        ("bow_(weapon)", "it shoots arrows"),
        ("bow", ""),  # two things
        ("hair bow", ""),
    ],
)
def test_a_name_is_looked_up_by_its_words_then_by_its_head(name, definition):
    found = ConceptDictionary(ENTRIES).sentence(name)
    assert found == (f"{concept_name(name)}, {definition}" if definition else concept_name(name))


def test_a_bare_name_of_a_card_blocks_no_definition(tmp_path):
    (tmp_path / "more.json").write_text('[{"name": "Person", "definition": "a human being"}, {"name": "cat"}]')
    cards = [card_of("person"), card_of("People", "cat"), card_of({"name": "cat", "definition": "purrs"})]
    found = merge_cards(cards, [tmp_path / "more.json"])
    assert found.sentence("person") == "person, a human being"
    assert found.sentence("people") == "people, a human being"
    assert found.sentence("Cat") == "cat, purrs"


def card_of(*names):
    return {"categories": [{"id": 1, **(one if isinstance(one, dict) else {"name": one})} for one in names]}


def test_a_dictionary_is_written_and_read_again(tmp_path):
    entries = {"cat": "an animal that purrs", "dog": ""}
    ConceptDictionary(entries).write(tmp_path / "d.json")
    assert ConceptDictionary.read(tmp_path / "d.json").definitions == entries
    ConceptDictionary(ENTRIES).write(tmp_path / "e.json")
    again = ConceptDictionary.read(tmp_path / "e.json")
    assert again.entries == ConceptDictionary(ENTRIES).entries
    assert again.sha256() == ConceptDictionary(ENTRIES).sha256() != ConceptDictionary(entries).sha256()


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
    found = merge_cards([None, card], [tmp_path / "more.json"])
    assert found.definitions == {"cat": "purrs", "emu": "bird"}


@pytest.mark.photos
def test_lvis_names_keep_their_own_definitions(sample_data):
    found = ConceptDictionary.read(sample_data / "lvis" / "lvis_v1_train_cat_info.json")
    assert found.sentence("aerosol_can").startswith("aerosol can, a dispenser that holds a substance under pressure")
    assert len(found) > 1100
