"""A beside B: for each figure the difference and its paired 95 % interval.

A model with several readouts (a CLIP-only encoder on regions) stands with the best of them, chosen for each figure on
the evaluation set itself, which flatters that model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.metrics.intervals import Difference, compare_paired
from benchmarks.rows import Row, ScoredRow


@dataclass(frozen=True)
class Compared:
    """One figure of both models.

    Attributes:
        a, b: the model's best row; without a value where the model cannot.
        readouts_a, readouts_b: how many readouts with a value it was the best of.
        difference: A minus B, None where one model has no value.
        row: the difference as a row of results.json; it says why where there is none.
    """

    a: ScoredRow
    b: ScoredRow
    readouts_a: int
    readouts_b: int
    difference: Difference | None
    row: Row


def compare(results: Sequence[ScoredRow]) -> list[Compared]:
    """Compare models 0 and 1 wherever both were measured on the same examples, in the order of model 0.

    Figures that are no mean over examples (speeds) have no pairs and are left alone.
    """
    compared = []
    for key in dict.fromkeys(result.key for result in results if result.model_index == 0):
        both = [[r for r in results if r.key == key and r.model_index == index] for index in (0, 1)]
        pairable = all(r.tally is not None or r.row.value is None for own in both for r in own)
        if all(both) and pairable:
            compared.append(_compare_pair(*both))
    return compared


def list_one_sided(compared: Sequence[Compared]) -> list[Row]:
    """What only one model could be measured on, or neither: its best row, with the reason for it."""
    rows = []
    for one in compared:
        if one.difference is None:
            shown = one.b.row if one.a.row.value is None and one.b.row.value is not None else one.a.row
            rows.append(replace(shown, reason=one.row.reason))
    return rows


def choose_best(results: Sequence[ScoredRow]) -> tuple[ScoredRow, int]:
    """The result of highest value, and among how many with a value; the first one where none has a value."""
    valued = [(result.row.value, result) for result in results if result.row.value is not None]
    if not valued:
        return results[0], 0
    return max(valued, key=lambda pair: pair[0])[1], len(valued)


def describe_readout(result: ScoredRow, count: int) -> str:
    """`clip-crop (best of 3)`."""
    return result.row.predictor if count < 2 else f"{result.row.predictor} (best of {count})"


def _join_if_different(a: str | None, b: str | None) -> str | None:
    return a if a == b else f"{a} minus {b}"


def _compare_pair(rows_a: Sequence[ScoredRow], rows_b: Sequence[ScoredRow]) -> Compared:
    (a, count_a), (b, count_b) = choose_best(rows_a), choose_best(rows_b)
    named_a, named_b = describe_readout(a, count_a), describe_readout(b, count_b)
    difference, reason, value = None, None, None
    if a.tally is not None and b.tally is not None:
        difference = compare_paired(a.tally, b.tally, a.row.seed)
        value = difference.value
        reason = a.row.reason
    else:
        lacking = a if a.row.value is None else b
        both = a.row.value is None and b.row.value is None and a.row.reason == b.row.reason
        reason = lacking.row.reason if both else f"{lacking.row.model}: {lacking.row.reason}"
    row = replace(
        a.row,
        metric=f"{a.row.metric}_difference",
        protocol=f"{a.row.protocol}: {named_a} minus {named_b}",
        value=value,
        ci95=difference.ci95 if difference else None,
        chance=None,
        constant=None,
        no_constant="a difference of two models",
        model=f"{a.row.model} minus {b.row.model}",
        predictor=f"{named_a} minus {named_b}",
        model_sha256=f"{a.row.model_sha256} minus {b.row.model_sha256}",
        texts_sha256=_join_if_different(a.row.texts_sha256, b.row.texts_sha256),
        tokenizer_sha256=_join_if_different(a.row.tokenizer_sha256, b.row.tokenizer_sha256),
        seconds=round(a.row.seconds + b.row.seconds, 3),
        reason=reason,
        images_per_second=None,
    )
    return Compared(a, b, count_a, count_b, difference, row)
