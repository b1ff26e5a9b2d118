"""Rules that turn an answer in words into right or wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

TORN = "answers that name neither of the two, or both, judged by the right name alone"
_CLAUSES = (re.compile(r"\s+not[^,.]*[,.]"), re.compile(r"\s+no[^,.]*[,.]"))


def remove_negations(text: str) -> str:
    """An answer without what it denies: from ` not` or ` no` to the next comma or full stop.

    The rule of Ferret's evaluation, to the letter: a clause that begins the answer or ends without a mark stays, and so
    goes any word that begins with `no` ("a nose, ...").
    """
    for clause in _CLAUSES:
        text = clause.sub("", text)
    return text


def is_named(text: str, words: Sequence[str]) -> bool:
    """Whether the answer, without what it denies, holds one of the names; letter case as it stands."""
    remaining = remove_negations(text)
    return any(word in remaining for word in words)


def note_undecided_names(asked: Sequence[tuple[str, Sequence[str], str]]) -> Counter[str]:
    """How many answers to "this or that?" name neither or both of the two, for a note on the figures.

    Args:
        asked: (answer, names that count as right, the other name, underscores as they stand) of each.
    """
    torn = [is_named(text, words) == is_named(text, [other.replace("_", " ").strip()]) for text, words, other in asked]
    return +Counter({TORN: sum(torn)})


def as_yes(value: object) -> bool | None:
    """A yes or no as files spell it: yes, no, y, n, true, false, 1, 0 in any case, with blanks or a full stop around,
    or a JSON value true, false, 1, 0. None for anything else.
    """
    word = str(value).strip(" \t\r\n.!\"'").lower() if isinstance(value, (str, bool, int, float)) else ""
    if word in ("yes", "y", "true", "1", "1.0"):
        return True
    return False if word in ("no", "n", "false", "0", "0.0") else None


def is_yes(text: str) -> bool:
    """POPE's rule (Li et al. 2023): in the first sentence no word `no` or `not`. Spelling does not matter (`NO`, `No!`,
    `no` before a line's end), which the published lines of code read as yes; nor do commas.
    """
    return not {"no", "not"} & _words(text)


def is_undecided(text: str) -> bool:
    """Whether the first sentence holds neither a word `yes` nor `no` or `not`, or both, so that the rule guesses."""
    words = _words(text)
    return ("yes" in words) == bool({"no", "not"} & words)


def _words(text: str) -> set[str]:
    spelled = as_yes(text)
    if spelled is not None:
        return {"yes" if spelled else "no"}
    return set(re.findall(r"[^\W_]+", text.strip().split(".")[0].lower()))


def note_undecided(texts: Sequence[str]) -> Counter[str]:
    """How many answers say neither yes nor no, or both, for a note on the figures."""
    return +Counter({"answers with neither yes nor no, or both, counted by POPE's rule": sum(map(is_undecided, texts))})


def score_yes(said: Sequence[bool], true: Sequence[bool]) -> Mapping[str, float | None]:
    """POPE's figures beside accuracy; `yes` is the positive answer.

    Returns:
        precision, recall, f1 (None where nothing is positive), yes_ratio.
    """
    both = sum(a and b for a, b in zip(said, true, strict=True))
    precision = both / sum(said) if any(said) else None
    recall = both / sum(true) if any(true) else None
    f1 = 2 * precision * recall / (precision + recall) if precision and recall else (None if both else 0.0)
    return {"precision": precision, "recall": recall, "f1": f1, "yes_ratio": sum(said) / len(said)}


NO_RATIO = "neither chance nor constant: how often it says yes is neither right nor wrong"


def score_blind_yes(true: Sequence[bool]) -> Mapping[str, Mapping[str, Any]]:
    """Chance (a coin) and constant (the better of always yes and always no) of accuracy and of `score_yes`, and where
    there is none, why; by figure, as fields of a row.
    """
    share = sum(true) / len(true)
    coin = {"precision": share, "recall": 0.5, "f1": share / (share + 0.5)}
    always = {"precision": share, "recall": 1.0, "f1": 2 * share / (share + 1)}
    baselines = {name: {"chance": value, "constant": always[name]} for name, value in coin.items()}
    baselines["accuracy"] = {"chance": 0.5, "constant": max(share, 1 - share)}
    return {**baselines, "yes_ratio": {"no_constant": NO_RATIO}}


def score_relative(pairs: Sequence[Sequence[float]]) -> float:
    """100 times the sum of the model's points over the sum of the reference's, as ml-ferret sums up its reviews.

    Args:
        pairs: (reference, model) points of each review.
    """
    return 100.0 * sum(pair[1] for pair in pairs) / sum(pair[0] for pair in pairs)
