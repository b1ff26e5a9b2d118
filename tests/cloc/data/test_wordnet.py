"""WordNet's glosses and names for concept dictionaries, on a made-up net and on the real one where it is installed."""

import json
from dataclasses import dataclass, field

import pytest

from cloc.convert import dictionary
from cloc.convert.dictionary import DEBIAN, explain_entries, open_wordnet
from cloc.data.concepts import ConceptDictionary, Entry, read_entries


@dataclass
class Sense:
    """One synset, as NLTK has them."""

    key: str
    names: tuple
    gloss: str
    above: list = field(default_factory=list)
    below: list = field(default_factory=list)

    def name(self):
        return self.key

    def lemma_names(self):
        return list(self.names)

    def definition(self):
        return self.gloss

    def hypernyms(self):
        return self.above

    def hyponyms(self):
        return self.below

    def hypernym_paths(self):
        return [[*path, self] for one in self.above for path in one.hypernym_paths()] or [[self]]


class Net:
    """A few senses; `bat` comes first as a thought, which nobody can box."""

    def __init__(self):
        self.senses = {}
        for key, names, gloss, above in (
            ("physical_entity.n.01", ["physical_entity"], "what exists", []),
            ("idea.n.01", ["bat"], "a thought", []),
            ("animal.n.01", ["animal"], "it lives", ["physical_entity.n.01"]),
            ("bat.n.01", ["bat", "chiropteran"], "it flies at night", ["animal.n.01"]),
            ("dog.n.01", ["dog"], "it barks", ["animal.n.01"]),
            ("corgi.n.01", ["corgi", "Welsh_corgi"], "a short dog", ["dog.n.01"]),
            ("puppy.n.01", ["puppy"], "a young dog", ["dog.n.01"]),
            ("pup.n.01", ["whelp"], "a younger dog", ["puppy.n.01"]),
        ):
            sense = Sense(key, names, gloss, [self.senses[one] for one in above])
            self.senses[key] = sense
            for one in sense.above:
                one.below.append(sense)

    def synset(self, key):
        if key not in self.senses:
            raise ValueError(key)
        return self.senses[key]

    def synsets(self, name, pos):
        return [sense for sense in self.senses.values() if name in sense.names]


@pytest.fixture
def nltk_errors(monkeypatch):
    """Only the class of errors is read from NLTK."""
    import sys
    import types

    monkeypatch.setitem(sys.modules, "nltk", types.ModuleType("nltk"))
    for name in ("nltk.corpus", "nltk.corpus.reader"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = types.ModuleType("nltk.corpus.reader.wordnet")
    module.WordNetError = KeyError
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_glosses_kinds_and_parents(nltk_errors):
    given = [Entry("dog", "own words"), Entry("bat"), Entry("Animal"), Entry("gizmo")]
    found = {
        entry.name: entry for entry in explain_entries(given, Net(), {"animal": "animal.n.01", "dog": "gone.n.09"}, 6)
    }
    assert list(found) == ["dog", "bat", "Animal", "gizmo", "corgi", "puppy"]
    assert [entry.definition for entry in found.values()] == [
        "own words", "it flies at night", "it lives", "", "a short dog", "a young dog",
    ]  # fmt: skip
    assert found["corgi"].synonyms == ("welsh corgi",)
    assert found["dog"].parents == found["bat"].parents == ("animal",)
    assert found["puppy"].parents == ("dog",)
    assert len(explain_entries(given, Net(), {}, None)) == 4
    assert [entry.name for entry in explain_entries([Entry("animal")], Net(), {}, 99)] == [
        "animal", "bat", "dog", "corgi", "puppy", "whelp",
    ]  # fmt: skip


def test_objects365_names_are_read_from_their_csv(tmp_path):
    file = tmp_path / "names.csv"
    file.write_text("1,Person,Person\n2,Moniter/TV,Monitor/TV\n")
    assert read_entries(file) == [Entry("Person"), Entry("Monitor/TV", synonyms=("Monitor", "TV"))]
    assert ConceptDictionary([*read_entries(file), Entry("television")]).find("tv").name == "monitor tv"


def test_what_is_missing_is_named_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "c.txt").write_text("dog\n")
    out = ["--categories", str(tmp_path / "c.txt"), "--out", str(tmp_path / "d.json")]
    assert dictionary.main([*out, "--wordnet", str(tmp_path)]) == 2
    assert "install them with `apt install wordnet-base`" in capsys.readouterr().err
    assert dictionary.main([*out, "--concepts", "9"]) == 2
    assert "--concepts: further names come from WordNet; add --wordnet" in capsys.readouterr().err
    (tmp_path / "data.noun").write_text("")
    import sys

    monkeypatch.setitem(sys.modules, "nltk.data", None)
    monkeypatch.setitem(sys.modules, "nltk", None)
    assert dictionary.main([*out, "--wordnet", str(tmp_path)]) == 2
    assert "expected the package nltk, found none; `pip install nltk`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_net_gives_as_many_concepts_as_asked_for(tmp_path):
    pytest.importorskip("nltk")
    if not (DEBIAN / "data.noun").is_file():
        pytest.skip("needs Debian's wordnet-base")
    assert open_wordnet().synset("dog.n.01").lemma_names()[0] == "dog"
    listed = [{"name": "person", "synset": "person.n.01"}, {"name": "fish"}, {"name": "shark", "def": "teeth"}]
    (tmp_path / "c.json").write_text(json.dumps(listed))
    asked = ["--categories", str(tmp_path / "c.json"), "--wordnet", "--concepts", "500"]
    assert dictionary.main([*asked, "--out", str(tmp_path / "d.json")]) == 0
    found = ConceptDictionary.read(tmp_path / "d.json")
    assert len(found) == 500
    assert all(found.definitions.values())
    assert found.sentence("shark") == "shark, teeth"
    assert found.entries["person"].definition == "a human being"
