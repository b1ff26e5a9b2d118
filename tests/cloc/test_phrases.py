"""The chunker: what it takes for a thing, what it leaves out, and that no caption is too long or too odd for it."""

import itertools
import sys

import pytest

from cloc.phrases import CHUNKERS, make_chunker, noun_phrases

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
    from cloc.data.scenes.captions import TEMPLATES
    from cloc.data.scenes.sprites import coloured_shapes

    names = [sprite.name for sprite in coloured_shapes()]
    for template, (first, second) in itertools.product(TEMPLATES, itertools.pairwise(names)):
        found = noun_phrases(template.format(f"a {first} and a {second}"))
        assert found[:2] == (first, second), template


@pytest.mark.parametrize("word", ["dog ", "dog, ", "a dog's ", "and ", "running ", "x" * 50 + " ", "-", "'"])
def test_a_caption_of_ten_thousand_words_is_read(word):
    """In linear time: a reading that looks back over the caption would take minutes here."""
    assert len(noun_phrases(word * 10_000, 10_000)) <= 3


def test_a_chunker_by_name(monkeypatch):
    assert CHUNKERS == ("rules", "spacy")
    assert make_chunker("rules")("a dog", 20) == ("dog",)
    with pytest.raises(ValueError, match="chunker: expected one of rules, spacy, got 'nltk'"):
        make_chunker("nltk")
    monkeypatch.setitem(sys.modules, "spacy", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install spacy.*python -m spacy download en_core_web_sm"):
        make_chunker("spacy")
