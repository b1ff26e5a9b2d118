"""Rules that turn an answer in words into right or wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_CLAUSES = (re.compile(r"\s+not[^,.]*[,.]"), re.compile(r"\s+no[^,.]*[,.]"))


def without_negations(text: str) -> str:
    """An answer without what it denies: from ` not` or ` no` to the next comma or full stop.

    The rule of Ferret's evaluation, to the letter: a clause that begins the answer or ends without a mark stays, and so
    goes any word that begins with `no` ("a nose, ...").
    """
    for clause in _CLAUSES:
        text = clause.sub("", text)
    return text


def names_it(text: str, words: Sequence[str]) -> bool:
    """Whether the answer, without what it denies, holds one of the names; letter case as it stands."""
    told = without_negations(text)
    return any(word in told for word in words)


def says_yes(text: str) -> bool:
    """POPE's rule (Li et al. 2023): in the first sentence, without commas, no word `No`, `no` or `not`."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def yes_figures(said: Sequence[bool], true: Sequence[bool]) -> Mapping[str, float | None]:
    """POPE's figures beside accuracy; `yes` is the positive answer.

    Returns:
        precision, recall, f1 (None where nothing is positive), yes_ratio.
    """
    both = sum(a and b for a, b in zip(said, true, strict=True))
    precision = both / sum(said) if any(said) else None
    recall = both / sum(true) if any(true) else None
    f1 = 2 * precision * recall / (precision + recall) if precision and recall else (None if both else 0.0)
    return {"precision": precision, "recall": recall, "f1": f1, "yes_ratio": sum(said) / len(said)}


def relative_score(pairs: Sequence[Sequence[float]]) -> float:
    """100 times the sum of the model's points over the sum of the reference's, as ml-ferret sums up its reviews.

    Args:
        pairs: (reference, model) points of each review.
    """
    return 100.0 * sum(pair[1] for pair in pairs) / sum(pair[0] for pair in pairs)
