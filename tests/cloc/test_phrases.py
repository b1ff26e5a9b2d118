"""The chunker: what it takes for a thing, what it leaves out, and that no caption is too long or too odd for it."""

import itertools
import sys
import types

import pytest

from cloc.phrases import CHUNKERS, make_chunker, noun_phrases
from cloc.phrases.words import OWLV2_GENERIC

# caption, phrases: one row a rule
CASES = (
    ("a red circle and a blue star on grass", ("red circle", "blue star", "grass")),  # rendered captions come apart
    ("here we see a green ring, a blue square and a red ring", ("green ring", "blue square", "red ring")),
    ("a picture of a yellow triangle", ("yellow triangle",)),  # generic words are no phrases
    ("stock photo background wallpaper", ()),
    ("There is a potted plant on the back of a toilet", ("potted plant", "toilet")),  # positions name nothing
    ("a group of muddy elephants", ("muddy elephants",)),  # nor do amounts
    ("a bowl of soup", ("bowl", "soup")),  # but a bowl is a thing
    ("The man's hand holds a can of soda", ("man", "hand", "can", "soda")),
    ("A man can ride a horse", ("man", "horse")),
    ("A black and white cat on a red and a blue mat", ("black and white cat", "blue mat")),
    ("an orange on an orange plate", ("orange", "orange plate")),  # noun and adjective
    ("A crowded parking lot near a frying pan", ("crowded parking lot", "frying pan")),
    ("A woman is painting a wall beside a painting", ("woman", "wall", "painting")),
    ("a dog, the dog and two dogs", ("dog", "dogs")),  # each once, determiner and number away
    ("The sky is blue and the man is tall", ("sky", "man")),  # what is said of a thing is no thing
    ("People ride bikes to ride home", ("people", "bikes", "home")),
    ("running quickly", ()),
    ("", ()),
    (" \n\t ", ()),
    ("!!! 123 %&", ()),
    ("een hond's ülkü naïve", ("een hond", "ülkü naïve")),  # unknown words are nouns, whatever the alphabet
)


@pytest.mark.parametrize(("caption", "phrases"), CASES)
def test_phrases_of_a_caption(caption, phrases):
    assert noun_phrases(caption) == phrases


def test_the_first_twenty_are_kept():
    caption = ", ".join(f"a name{n}x" for n in range(50))
    assert noun_phrases(caption) == tuple(f"name{n}x" for n in range(20))
    assert noun_phrases(caption, 3) == ("name0x", "name1x", "name2x")
    with pytest.raises(ValueError, match="limit: expected at least 1 phrase, got 0"):
        noun_phrases(caption, 0)


def test_every_rendered_caption_comes_apart():
    from cloc.scenes.captions import TEMPLATES
    from cloc.scenes.sprites import make_coloured_shapes

    names = [sprite.name for sprite in make_coloured_shapes()]
    for template, (first, second) in itertools.product(TEMPLATES, itertools.pairwise(names)):
        found = noun_phrases(template.format(f"a {first} and a {second}"), generic="ours")
        assert found[:2] == (first, second), template


@pytest.mark.parametrize("word", ["dog ", "dog, ", "a dog's ", "and ", "running ", "x" * 50 + " ", "-", "'"])
def test_a_caption_of_ten_thousand_words_is_read(word):
    """In linear time: a reading that looks back over the caption would take minutes here."""
    assert len(noun_phrases(word * 10_000, 10_000)) <= 3


def test_a_chunker_by_name(monkeypatch):
    assert CHUNKERS == ("rules", "spacy", "nltk")
    assert make_chunker("rules")("a dog", 20) == ("dog",)
    with pytest.raises(ValueError, match="chunker: expected one of rules, spacy, nltk, got 'x'"):
        make_chunker("x")
    with pytest.raises(ValueError, match="generic words: expected one of owlv2, ours, none, got 'x'"):
        make_chunker("rules", "x")
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ValueError, match=r"pip install nltk.*nltk.downloader averaged_perceptron_tagger_eng.*rules"):
        make_chunker("nltk")
    monkeypatch.setitem(sys.modules, "spacy", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install spacy.*python -m spacy download en_core_web_sm"):
        make_chunker("spacy")


LOGO = "a red and white logo on a poster next to two dogs"


@pytest.mark.parametrize(
    ("generic", "phrases"),
    [
        ("owlv2", ("red and white logo", "poster", "dogs")),
        ("ours", ("dogs",)),
        ("none", ("red and white logo", "poster", "dogs")),
    ],
)
def test_which_words_are_generic_is_a_choice(generic, phrases):
    assert noun_phrases(LOGO, generic=generic) == make_chunker("rules", generic)(LOGO, 20) == phrases
    assert noun_phrases(LOGO) == noun_phrases(LOGO, generic="owlv2")
    assert noun_phrases("a photo of a dog", generic=generic) == (("photo", "dog") if generic == "none" else ("dog",))


def test_the_papers_list_has_its_61_words():
    assert len(OWLV2_GENERIC) == 61
    assert {"tumblr", "wallpaper", "stock", "photo", "youtube"} < OWLV2_GENERIC
    assert "ideas" in OWLV2_GENERIC
    assert not {"logo", "poster", "print", "scene", "ie"} & OWLV2_GENERIC


class Word:
    def __init__(self, text, pos):
        self.text, self.pos_ = text, pos


def pretend_spacy(has_model):
    """spaCy with one sentence in its head."""
    spacy = types.ModuleType("spacy")
    chunk = [Word("the", "DET"), Word("red", "ADJ"), Word("logo", "NOUN")]
    said = types.SimpleNamespace(
        noun_chunks=[chunk, [Word("it", "PRON")], [Word("side", "NOUN")], [Word("dogs", "NOUN")]]
    )

    def load(name, exclude):
        if not has_model:
            raise OSError(f"[E050] Can't find model '{name}'")
        return lambda text: said

    spacy.load = load
    return spacy


def test_spacys_chunks_follow_the_same_rules(monkeypatch):
    make_chunker.cache_clear()
    monkeypatch.setitem(sys.modules, "spacy", pretend_spacy(False))
    with pytest.raises(ValueError, match="expected the model en_core_web_sm, found none") as told:
        make_chunker("spacy")
    assert "\n" not in str(told.value)
    monkeypatch.setitem(sys.modules, "spacy", pretend_spacy(True))
    assert make_chunker("spacy")("x", 20) == ("red logo", "dogs")
    assert make_chunker("spacy")("x", 1) == ("red logo",)
    assert make_chunker("spacy", "ours")("x", 20) == ("dogs",)
    make_chunker.cache_clear()


def test_nltks_chunks_are_vesls(monkeypatch):
    nltk = pytest.importorskip("nltk")
    make_chunker.cache_clear()

    def missing(words):
        raise LookupError("\n***\nResource not found")

    monkeypatch.setattr(nltk, "pos_tag", missing)
    with pytest.raises(ValueError, match="expected the data averaged_perceptron_tagger_eng, found none") as told:
        make_chunker("nltk")
    assert "\n" not in str(told.value)
    tags = {"a": "DT", "the": "DT", "red": "JJ", "and": "CC", "on": "IN", "two": "CD", ":": ":", ".": "."}
    monkeypatch.setattr(nltk, "pos_tag", lambda words: [(word, tags.get(word, "NN")) for word in words])
    found = make_chunker("nltk")("A stock photo: the red logo on a poster and two dogs. The red logo.", 20)
    assert found == ("red logo", "poster", "dogs")
    make_chunker.cache_clear()
