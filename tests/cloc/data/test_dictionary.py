"""A concept dictionary from category files and captions, by function and by command."""

import json

import pytest

from cloc.convert.dictionary import build_dictionary, main, read_captions
from cloc.data.concepts import ConceptDictionary, read_categories
from cloc.scenes import WorldSpec, ensure_scenes

CAPTIONS = ["a red kettle on a table", "the red kettle", "an old table", "a table", "two teakettles", "some teakettles"]


@pytest.fixture
def categories(tmp_path):
    file = tmp_path / "categories.json"
    file.write_text(json.dumps([{"name": "teakettle", "def": "a kettle for tea"}, {"name": "cat"}]))
    return file


def test_phrases_that_captions_use_often_join_the_categories(categories):
    found, phrases = build_dictionary([categories], CAPTIONS)
    assert found.names == ("teakettle", "cat", "red kettle", "table", "teakettles")
    assert phrases == 3
    assert found.sentence("teakettles") == "teakettles, a kettle for tea"
    assert found.sentence("table") == "table"
    only, phrases = build_dictionary([categories], CAPTIONS, limit=1)
    assert (only.names, phrases) == (("teakettle", "cat", "red kettle"), 1)


def test_of_two_definitions_the_first_counts(categories, tmp_path):
    later = tmp_path / "later.json"
    later.write_text('[{"name": "Cat", "definition": "purrs"}, {"name": "teakettle", "definition": "other"}]')
    found, _ = build_dictionary([categories, later], [])
    assert found.definitions == {"teakettle": "a kettle for tea", "cat": "purrs"}


def test_nothing_found_and_numbers_below_one_are_named():
    with pytest.raises(ValueError, match="no noun phrase in 9 captions or more; lower --least"):
        build_dictionary([], CAPTIONS, least=9)
    with pytest.raises(ValueError, match="--least, --limit, --concepts: expected at least 1, got 0, None and None"):
        build_dictionary([], CAPTIONS, least=0)


def test_the_command_reads_shards_and_writes_what_training_reads(categories, tmp_path, capsys):
    spec = WorldSpec(train=6, detection=0, grounding=0, pairs=0, val=1, refcoco=1, size=32, shard_size=4)
    world = ensure_scenes(tmp_path / "world", spec, workers=1, progress=False).parent
    captions = list(read_captions(world / "train", {}, progress=False))
    assert len(captions) >= 6
    out = tmp_path / "made" / "dictionary.json"
    asked = ["--categories", str(categories), "--captions", str(world / "train"), "--least", "1", "--out", str(out)]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert dict(read_categories(out))["teakettle"] == "a kettle for tea"
    assert f"{len(ConceptDictionary.read(out)):,} concepts" in told
    assert main(asked) == 2
    assert "is there already; name another --out" in capsys.readouterr().err
    assert main([*asked[:-1], str(tmp_path / "b.json"), "--captions", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
