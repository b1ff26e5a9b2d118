"""What the labels of one image tell of a name: it is there, it is known to be absent, or nobody has looked.

    what was labelled                       absent                            unknown
    a set with a list of categories         the rest of its categories        parents and children of what is there
    a federated set (LVIS)                  `neg_category_ids` alone          all the rest
    boxes of what a caption mentions        what the caption does not name    what it names otherwise: the words of its
    (grounding)                                                               phrases, their synonyms, what they are
                                                                              kinds of, and kinds of them
Everywhere: a category with a crowd is unknown within the crowd's box, and one of `not_exhaustive_category_ids` is
unknown wherever no labelled box is. What a loss makes of it: `cloc.losses.unknowns`.

Concepts of a batch come from all of its images and all ranks, so an image cannot list what it does not know: it names
keys. A key stands for a category (`make_category_key`), for a word however it is spelled (`make_name_key`) or for all
kinds of it (`make_kind_key`), and every concept brings its own keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from cloc.data.concepts import ConceptDictionary, Entry, entries_of
from cloc.phrases import noun_phrases
from cloc.phrases.mentions import Mentions, find_head_words, spelling, split_name
from cloc.structures import Box, DataError, Region, Sample
from cloc.text import concept_name, text_id


@lru_cache(maxsize=1_000_000)
def make_category_key(name: str) -> int:
    """The key of one category, as `concept_name` gives it: LVIS has two bows, and both are spelled alike."""
    return text_id(f"category {name}")


@lru_cache(maxsize=1_000_000)
def make_name_key(spelled: str) -> int:
    """The key of one name, given its spelling."""
    return text_id(f"name {spelled}")


@lru_cache(maxsize=1_000_000)
def make_kind_key(spelled: str) -> int:
    """The key of everything that is a kind of a name, the name itself included."""
    return text_id(f"kind of {spelled}")


class Relations:
    """Which names are kinds of which, and synonyms: by a dictionary, and by heads (a `red kettle` is a kettle).

    Args:
        dictionary: its entries' synonyms and parents.
    """

    def __init__(self, dictionary: ConceptDictionary) -> None:
        self.dictionary = dictionary
        self.children: dict[str, list[str]] = {}
        for entry in dictionary.entries.values():
            for parent in entry.parents:
                self.children.setdefault(concept_name(parent), []).append(entry.name)
        self.concept_keys = lru_cache(maxsize=100_000)(self._concept_keys)
        self.near = lru_cache(maxsize=100_000)(self._near)
        self._rows: dict[int, list[int]] | None = None

    def above(self, name: str) -> list[str]:
        """Names of what a name of the dictionary is a kind of, all steps up; not the name itself."""
        return self._closure(name, lambda entry: entry.parents)

    def below(self, name: str) -> list[str]:
        """Names of the dictionary that are kinds of it, all steps down; not the name itself."""
        return self._closure(name, lambda entry: self.children.get(entry.name, ()))

    def _closure(self, name: str, step: Callable[[Entry], Iterable[str]]) -> list[str]:
        found, waiting = dict[str, None](), [concept_name(name)]
        while waiting:
            entry = self.dictionary.find(waiting.pop())
            for other in () if entry is None else map(concept_name, step(entry)):
                if other not in found and other != concept_name(name):
                    found[other] = None
                    waiting.append(other)
        return list(found)

    def _concept_keys(self, name: str) -> tuple[int, ...]:
        """The keys under which a concept answers: its own name, and all that it is a kind of."""
        words = split_name(name)
        head = find_head_words(words)
        own = ["".join(words), *("".join(head[first:]) for first in range(len(head)))]
        found = dict.fromkeys([make_category_key(concept_name(name)), make_name_key(own[0]), *map(make_kind_key, own)])
        for spelled in own:
            entry = self.dictionary.find_spelled(spelled)
            if entry is not None:
                more = [entry.name, *self.above(entry.name)]
                found |= dict.fromkeys(make_kind_key(spelling(one)) for one in more)
        return tuple(found)

    def _near(self, spelled: str) -> set[int]:
        """Keys of what is not called absent where a name is mentioned: itself, its synonyms, what it is a kind of."""
        found, entry = {make_name_key(spelled)}, self.dictionary.find_spelled(spelled)
        if entry is not None:
            main = spelled == spelling(entry.name)
            found |= {
                make_name_key(spelling(one)) for one in ((entry.name, *entry.synonyms) if main else (entry.name,))
            }
            found |= {make_name_key(spelling(one)) for one in self.above(entry.name)}
        return found

    def without(self, keys: Iterable[int]) -> list[str]:
        """The dictionary's names that answer to none of the keys, by themselves or by a synonym."""
        if self._rows is None:
            self._rows = {}
            for row, name in enumerate(self.dictionary.names):
                own = {*self.concept_keys(name)}
                own |= {make_name_key(spelling(one)) for one in self.dictionary.entries[name].synonyms}
                for key in own:
                    self._rows.setdefault(key, []).append(row)
        left_out = {row for key in keys for row in self._rows.get(key, ())}
        return [name for row, name in enumerate(self.dictionary.names) if row not in left_out]


@lru_cache(maxsize=4)
def make_relations(dictionary: ConceptDictionary) -> Relations:
    """The relations of a dictionary, made once."""
    return Relations(dictionary)


@dataclass(frozen=True)
class Vocabulary:
    """The categories that a set was labelled with.

    Attributes:
        names: each once, as `concept_name` gives them; empty where the set has no such list.
        by_id: `category_id` to name.
        federated: only the categories that an image's `neg_category_ids` list were looked for in vain.
        alone: no other set shares the batch, so that every concept in it is a category of this one.
        relations: what is a kind of what among the categories, as the set itself says.
    """

    names: tuple[str, ...] = ()
    by_id: Mapping[int, str] = field(default_factory=dict)
    federated: bool = False
    alone: bool = True
    relations: Relations = field(default_factory=lambda: Relations(ConceptDictionary({})))

    @classmethod
    def of_card(cls, card: Mapping[str, Any] | None, alone: bool = True) -> Vocabulary:
        """As the card of a set tells it; LVIS's cards of older conversions do not say `federated`."""
        card = card or {}
        categories = card.get("categories") or ()
        made = card.get("made")
        by = str(made.get("by", "")) if isinstance(made, Mapping) else ""
        names = tuple(dict.fromkeys(concept_name(str(one["name"])) for one in categories))
        return cls(
            names,
            {one["id"]: concept_name(str(one["name"])) for one in categories if isinstance(one.get("id"), int)},
            bool(card.get("federated", by == "cloc.data.convert lvis")),
            alone,
            Relations(ConceptDictionary(entries_of(categories, "a set's card"))),
        )


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of the concepts in one image.

    Attributes:
        closed: a concept that is not labelled and that `unknown` does not name is absent; else one that is neither
            labelled nor named by `known` is unknown.
        known: keys of what is absent; read where the image is not closed.
        unknown: keys; read where it is closed.
        partly: (key, box) of what is unknown within a box, xyxy pixels of the original image; None: anywhere. What is
            labelled stays a positive where it is.
        negatives: names that may be drawn as absent.
    """

    closed: bool = True
    known: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()
    partly: tuple[tuple[int, Box | None], ...] = ()
    negatives: tuple[str, ...] = ()

    def mirrored(self, width: int) -> Knowledge:
        """The same for the mirrored image of so many pixels."""
        flipped = tuple(
            (key, None if box is None else (width - box[2], box[1], width - box[0], box[3])) for key, box in self.partly
        )
        return replace(self, partly=flipped)


def find_crowds(sample: Sample) -> list[tuple[str, Box]]:
    """(name, box) of the groups that are no single object: regions with `crowd`, and entries of `crowds`."""
    found = [(concept_name(one.phrase), one.box) for one in sample.regions if one.extras.get("crowd")]
    listed = sample.extras.get("crowds")
    for entry in listed if isinstance(listed, list) else ():
        box, phrase = (entry.get("box"), entry.get("phrase")) if isinstance(entry, Mapping) else (None, None)
        try:
            region = Region.from_json({"box": box, "phrase": phrase}).inside(sample.width, sample.height)
        except DataError:
            continue
        found.append((concept_name(region.phrase), region.box))
    return found


def find_listed_names(sample: Sample, field_: str, vocabulary: Vocabulary) -> list[str]:
    """The names of the category ids that a sample lists; what the vocabulary does not know is left out."""
    ids = sample.extras.get(field_)
    ids = [one for one in ids if isinstance(one, int)] if isinstance(ids, list) else []
    return list(dict.fromkeys(vocabulary.by_id[one] for one in ids if one in vocabulary.by_id))


def is_federated(sample: Sample, vocabulary: Vocabulary) -> bool:
    """Whether absence is known of listed categories alone."""
    lists = (sample.extras.get(name) for name in ("neg_category_ids", "not_exhaustive_category_ids"))
    return vocabulary.federated or any(lists)


def find_knowledge(
    sample: Sample,
    present: Sequence[str],
    vocabulary: Vocabulary,
    relations: Relations,
    phrases: bool,
    beyond: Sequence[tuple[str, Box]] = (),
) -> Knowledge:
    """What is known of the concepts in one image.

    Args:
        sample: as read from a shard.
        present: names of its labelled boxes.
        vocabulary: of its set.
        relations: of the run's whole dictionary; read for phrases.
        phrases: boxes mark what a caption mentions, and not categories of a list.
        beyond: (name, box) of what is there and is not labelled in the batch; unknown within the box, as a crowd is.
    """
    there, crowds = dict.fromkeys(present), [*find_crowds(sample), *beyond]
    unfinished = find_listed_names(sample, "not_exhaustive_category_ids", vocabulary)
    partly = list[tuple[int, Box | None]]()
    partly += [(make_name_key(spelling(name)) if phrases else make_category_key(name), box) for name, box in crowds]
    partly += [(make_category_key(name), None) for name in unfinished if name in there]
    closed_to = {*there, *unfinished, *(name for name, _ in crowds)}
    if is_federated(sample, vocabulary):
        absent = [name for name in find_listed_names(sample, "neg_category_ids", vocabulary) if name not in closed_to]
        known = frozenset(map(make_category_key, absent))
        return Knowledge(False, known, partly=tuple(partly), negatives=tuple(absent))
    if phrases:
        unknown = _find_mentioned(sample, (*there, *(name for name, _ in crowds)), relations)
        left = tuple(name for name in relations.without(unknown) if name not in there)
        return Knowledge(True, unknown=unknown, partly=tuple(partly), negatives=left)
    related = {other for name in closed_to for other in _find_related(name, vocabulary.relations)} - {*there}
    open_to = closed_to | related
    left = tuple(name for name in vocabulary.names if name not in open_to)
    if vocabulary.alone:
        return Knowledge(True, unknown=frozenset(map(make_category_key, related)), partly=tuple(partly), negatives=left)
    known = frozenset(map(make_category_key, (*left, *(name for name, _ in crowds))))
    return Knowledge(False, known, partly=tuple(partly), negatives=left)


def _find_related(name: str, relations: Relations) -> list[str]:
    return [*relations.above(name), *relations.below(name)]


def _find_mentioned(sample: Sample, names: Sequence[str], relations: Relations) -> frozenset[int]:
    """Keys of all that a caption and phrases speak of, in other words too."""
    captions = [sample.caption, *(one for one in sample.extras.get("captions") or () if isinstance(one, str))]
    found = set[int]()
    for spelled in Mentions([*dict.fromkeys(captions), *names]).spellings:
        found |= relations.near(spelled)
    phrases = [*names, *(phrase for caption in dict.fromkeys(captions) for phrase in noun_phrases(caption))]
    for phrase in phrases:
        words = split_name(phrase)
        found |= {make_kind_key("".join(words)), make_kind_key("".join(find_head_words(words)))}
    return frozenset(found)
