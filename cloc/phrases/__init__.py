"""The noun phrases of a caption.

`rules` follows the order of CLOC's data engine VESL (Sec. 4, App. C): lower-case, generic web words away, a word class
for each word, then chunks of an optional determiner, adjectives and nouns. VESL takes NLTK's tagger; this one needs
word lists and endings only (`cloc.phrases.words`), is English, and takes every word that it does not know for a noun.

Departures, each because a phrase is a query and a region's text: the determiner is no part of it (`a dog` and `the dog`
are one, and category names have none), a number ends a chunk, as a generic word does, and a phrase is given once.
`nltk` is VESL's own way with the same departures, `spacy` DetCLIPv2's (its noun chunks).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Literal, cast, get_args

from cloc.phrases.words import (
    ADJECTIVES,
    ADJECTIVES_IN_LY,
    AMBIGUOUS,
    COLOURS,
    COMPOUNDS,
    COPULAS,
    DETERMINERS,
    EXISTENTIAL,
    FUNCTION,
    GENERIC,
    MEASURES,
    NOT_ADJECTIVES,
    NOUNS_IN_ED,
    NOUNS_IN_ING,
    NOUNS_IN_LY,
    NOUNS_TOO,
    NUMBERS,
    PLURALS,
    POSITIONS,
    TO_VERB,
    VERBS,
)
from cloc.text import canonical

Chunker = Callable[[str, int], tuple[str, ...]]

ChunkerName = Literal["rules", "spacy", "nltk"]
CHUNKERS = get_args(ChunkerName)
GenericWords = Literal["owlv2", "ours", "none"]
GENERIC_LISTS = get_args(GenericWords)
LIMIT = 20
"""Phrases of a caption that VESL keeps."""
SPACY_MODEL = "en_core_web_sm"
LIBRARIES = {"spacy": (SPACY_MODEL, "spacy"), "nltk": ("nltk",)}
"""Packages whose versions decide what a chunker finds."""
NLTK_TAGGER = "averaged_perceptron_tagger_eng"

_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]")
_ADJECTIVE_ENDING = re.compile(r".{2,}(?:ful|ous|less|able|ible|ive|ish|ic|ical|esque|-colored|-shaped|-sized)$")
_SENTENCE_END = re.compile(r"([.!?])\s+")
_DETERMINER, _ADJECTIVE, _NOUN, _BREAK, _AND = "determiner", "adjective", "noun", "break", "and"


def noun_phrases(caption: str, limit: int = LIMIT, generic: GenericWords = "owlv2") -> tuple[str, ...]:
    """The first noun phrases of an English caption, by rules.

    Args:
        caption: any text; read no further than `limit` needs.
        limit: how many phrases at most.
        generic: list of words that are no part of a phrase: OWLv2's, ours, or none.

    Returns:
        Lower-case phrases in the order of the caption, each once, without determiner; empty where there is no noun.

    Raises:
        ValueError: the limit is below 1.
    """
    _check_limit(limit)
    found: dict[str, None] = {}
    for words in _chunks(caption, GENERIC[generic]):
        found.setdefault(" ".join(words))
        if len(found) == limit:
            break
    return tuple(found)


@lru_cache(maxsize=8)
def make_chunker(name: str, generic: str = "owlv2") -> Chunker:
    """The function (caption, limit) to phrases of that name: `rules`, `spacy` or `nltk`.

    Args:
        name: of the chunker.
        generic: list of words that are no part of a phrase, of `GENERIC_LISTS`.

    Raises:
        ValueError: a name is unknown, or the package or its English model is not installed.
    """
    if generic not in GENERIC:
        raise ValueError(f"generic words: expected one of {', '.join(GENERIC)}, got {generic!r}")
    if name == "rules":
        return partial(noun_phrases, generic=cast("GenericWords", generic))
    if name == "spacy":
        return _spacy_chunker(GENERIC[generic])
    if name == "nltk":
        return _nltk_chunker(GENERIC[generic])
    raise ValueError(f"chunker: expected one of {', '.join(CHUNKERS)}, got {name!r}")


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 phrase, got {limit}")


def _chunks(caption: str, generic: frozenset[str]) -> Iterator[list[str]]:
    """Lists of words, adjectives and nouns, that end in a noun and name more than a position or an amount."""
    chunk: list[tuple[str, str]] = []
    for word, tag, next_word in _tagged(caption, generic):
        has_noun = any(t == _NOUN for _, t in chunk)
        if tag == _NOUN:
            chunk.append((word, tag))
            continue
        if tag == _AND and chunk and not has_noun and chunk[-1][0] in COLOURS and next_word in COLOURS:
            chunk.append((word, _ADJECTIVE))  # `black and white cat` is one thing
            continue
        if tag == _ADJECTIVE and not has_noun:
            chunk.append((word, tag))
            continue
        yield from _closed(chunk, before_of=word == "of")
        chunk = [(word, tag)] if tag == _ADJECTIVE else []
    yield from _closed(chunk, before_of=False)


def _closed(chunk: list[tuple[str, str]], before_of: bool) -> Iterator[list[str]]:
    """The chunk's words where it names a thing."""
    nouns = [word for word, tag in chunk if tag == _NOUN]
    if not nouns or all(word in POSITIONS for word in nouns) or (before_of and nouns[-1] in MEASURES):
        return
    yield [word for word, _ in chunk]


def _tagged(caption: str, generic: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """(word, tag, next word) of a caption; punctuation is a break."""
    before, previous, tag = "", "", _BREAK
    tokens = (match.group().lower().replace("’", "'") for match in _TOKEN.finditer(caption))
    word = next(tokens, "")
    while word:
        following = next(tokens, "")
        stem = word.removesuffix("'s") if word not in FUNCTION else word
        tag = _BREAK if stem in generic else _tag(stem, before, previous, tag, following)
        yield stem, tag, following
        if stem != word:  # `a man's hand` names two things
            yield "'s", _BREAK, following
            tag = _BREAK
        before, previous, word = previous, word, following


def _tag(word: str, before: str, previous: str, last: str, following: str) -> str:
    """The class of a word, given the two words before it, the class of the nearer one, and the word after it."""
    if word == "can":  # a tin after a determiner or before `of`, else a verb
        return _NOUN if last in (_DETERMINER, _ADJECTIVE) or following == "of" else _BREAK
    if word == "and":
        return _AND
    if not word[0].isalpha() or word in NUMBERS:
        return _BREAK
    if word in DETERMINERS:
        return _DETERMINER
    if word in FUNCTION:
        return _BREAK
    if word in VERBS or word in AMBIGUOUS:
        return _verb_or_noun(word, previous, last, following)
    if word.endswith(("ing", "ed", "ly")) and len(word) > 3:
        return _by_verbal_ending(word, previous, last, following)
    if word in NOUNS_TOO and (last == _NOUN or _ends_chunk(following)):
        return _NOUN
    if word in ADJECTIVES or (_ADJECTIVE_ENDING.match(word) and word not in NOT_ADJECTIVES):
        return _ADJECTIVE
    predicate = previous in COPULAS and before not in EXISTENTIAL and last == _BREAK and not word.endswith("s")
    return _ADJECTIVE if predicate else _NOUN


def _verb_or_noun(word: str, previous: str, last: str, following: str) -> str:
    if word not in AMBIGUOUS:
        return _NOUN if last in (_DETERMINER, _ADJECTIVE) and word in _NOUNS_AFTER_DETERMINER else _BREAK
    if last == _NOUN:
        if previous in PLURALS and not word.endswith("s"):
            return _BREAK  # `people ride bikes`
        subject = word.endswith("s") or previous.endswith("s")
        return _BREAK if subject and _ends_chunk(following) and not following.endswith("ing") else _NOUN
    if previous in TO_VERB or (last not in (_DETERMINER, _ADJECTIVE) and following in DETERMINERS):
        return _BREAK
    return _NOUN


_NOUNS_AFTER_DETERMINER = frozenset("found lead fit bake lean lick fill move wash help gathers fries".split())


def _by_verbal_ending(word: str, previous: str, last: str, following: str) -> str:
    """Words in -ing, -ed and -ly: adjectives before a noun, verbs and adverbs after one, and the nouns of the lists."""
    if word in NOUNS_IN_ED or word in NOUNS_IN_LY:
        return _NOUN
    if word in COMPOUNDS and following in COMPOUNDS[word]:
        return _NOUN
    if word in NOUNS_IN_ING:
        return _BREAK if (last == _NOUN or previous in COPULAS) and following in DETERMINERS else _NOUN
    if word.endswith("ly"):
        return _ADJECTIVE if word in ADJECTIVES_IN_LY else _BREAK
    if last == _NOUN or (word.endswith("ing") and last not in (_DETERMINER, _ADJECTIVE)):
        return _BREAK
    return _ADJECTIVE


def _ends_chunk(word: str) -> bool:
    """The word cannot go on with a chunk of nouns."""
    if not word or not word[0].isalpha() or word in ("and", "can"):
        return True
    return (
        word in DETERMINERS or word in FUNCTION or word in ADJECTIVES or word in NUMBERS or word.endswith(("ly", "ing"))
    )


def _spacy_chunker(generic: frozenset[str]) -> Chunker:
    install = f"`pip install spacy`, then `python -m spacy download {SPACY_MODEL}`; or take the chunker rules"
    try:
        import spacy
    except ImportError as error:
        raise ValueError(f"chunker spacy: expected the package spacy, found none; {install}") from error
    try:
        language = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
    except OSError as error:
        raise ValueError(f"chunker spacy: expected the model {SPACY_MODEL}, found none; {install}") from error

    def chunks(caption: str) -> Iterator[list[tuple[str, bool]]]:
        for piece in language(canonical(caption)).noun_chunks:
            words = [token for token in piece if token.pos_ not in ("DET", "PRON", "NUM", "PUNCT")]
            yield [(token.text, token.pos_ in ("NOUN", "PROPN")) for token in words]

    return _by_chunks(chunks, generic)


def _nltk_chunker(generic: frozenset[str]) -> Chunker:
    install = f"`pip install nltk`, then `python -m nltk.downloader {NLTK_TAGGER}`; or take the chunker rules"
    try:
        import nltk
    except ImportError as error:
        raise ValueError(f"chunker nltk: expected the package nltk, found none; {install}") from error
    tokenizer, grammar = nltk.NLTKWordTokenizer(), nltk.RegexpParser("NP: {<DT>?<JJ.*>*<NN.*>+}")
    try:
        nltk.pos_tag(["dog"])
    except LookupError as error:
        raise ValueError(f"chunker nltk: expected the data {NLTK_TAGGER}, found none; {install}") from error

    def chunks(caption: str) -> Iterator[list[tuple[str, bool]]]:
        apart = _SENTENCE_END.sub(r" \1 ", canonical(caption))  # the tokenizer takes one sentence
        words = [word for word in tokenizer.tokenize(apart) if word not in generic]
        tree = grammar.parse(nltk.pos_tag(words)) if words else ()
        for piece in tree:
            if not isinstance(piece, tuple):
                yield [(word, tag.startswith("NN")) for word, tag in piece if tag != "DT"]

    return _by_chunks(chunks, generic)


def _by_chunks(chunks: Callable[[str], Iterator[list[tuple[str, bool]]]], generic: frozenset[str]) -> Chunker:
    """A chunker of what another package finds: for each chunk its words, and whether each is a noun."""

    def chunk(caption: str, limit: int = LIMIT) -> tuple[str, ...]:
        """As `noun_phrases`, with another package's tagger and chunks."""
        _check_limit(limit)
        found: dict[str, None] = {}
        for piece in chunks(caption):
            words = [(word, noun) for word, noun in piece if word not in generic]
            if any(noun and word not in POSITIONS for word, noun in words):
                found.setdefault(" ".join(word for word, _ in words))
            if len(found) == limit:
                break
        return tuple(found)

    return chunk
