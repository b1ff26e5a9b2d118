"""What a task offers, and what it hands back: scores that still hold their sums, and one line an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data_roots import FoundSet
from benchmarks.examples import Chart, ExampleSet
from benchmarks.metrics.intervals import Resampled
from benchmarks.rows import Row


@dataclass(frozen=True)
class Options:
    """What the command line says about a run.

    Attributes:
        limit: only the first so many images of each split; None for all. The protocol then says so.
        photos_at_once: photos held in memory at a time.
        progress: whether bars are drawn.
        boxes_an_image: that a detector returns at most; protocols without a limit of their own say so, and
        boxes_a_level: (box, name) pairs of each level of our detector that reach the suppression, so that no more than
            five times as many can come out; protocols without a limit say it too, others where it is no 1,000.
        share: of several processes, photos that go to one at a time: the chunk of a question.
    """

    limit: int | None = None
    photos_at_once: int = 64
    progress: bool = True
    share: int = 64
    boxes_an_image: int = 300
    boxes_a_level: int = 1000


@dataclass(frozen=True)
class Score:
    """One metric before it becomes a row.

    Attributes:
        split, protocol, metric: as in `Row`.
        tally: its sums by image; None where it is no mean over examples, or cannot be had.
        value: only where there is no tally: the figure itself.
        num_examples: only where there is no tally.
        ci95: only where there is no tally: its 95 % interval.
        skipped: examples left out, by reason.
        chance, constant: as in `Row`.
        no_constant: why one of them is not given; a figure without both needs it.
        reason: why there is no figure.
    """

    split: str
    protocol: str
    metric: str
    tally: Resampled | None = None
    value: float | None = None
    num_examples: int = 0
    ci95: tuple[float, float] | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    chance: float | None = None
    constant: float | None = None
    reason: str | None = None
    no_constant: str | None = None

    def __post_init__(self) -> None:
        explained = (self.chance is not None and self.constant is not None) or self.no_constant
        there = self.value is not None or self.tally is not None
        assert explained or not there, (
            f"{self.protocol} {self.metric}: neither chance and constant nor why there is none"
        )


@dataclass(frozen=True)
class TaskOutput:
    """What one task found on one data set with one predictor.

    Attributes:
        dataset: its name; rendered ones begin with `scenes-`.
        rendered: whether its file says that it is rendered.
        scores: all metrics, also those that this predictor cannot do.
        predictions: one JSON object an example, enough to score again.
        examples: the examples for the report; None where the task has none to show.
        charts: for the report.
        as_list: the predictions are written as one JSON list (COCO's results), not a line each.
    """

    dataset: str
    rendered: bool
    scores: list[Score]
    predictions: Collection[dict[str, Any]] = field(default_factory=list)
    examples: ExampleSet | None = None
    charts: tuple[Chart, ...] = ()
    as_list: bool = False


class Task(ABC):
    """One benchmark."""

    name: str
    needs: str
    runs_by_default: bool
    """Whether a run without task names includes it."""
    kinds: tuple[str, ...] = ("encoder",)
    """Kinds of predictor that can do it: `encoder`, `detector`, `mllm`."""
    layout: str = "official"
    """Whose layout its data has, for `--list`."""

    @abstractmethod
    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """The data sets that are there, in the order of the roots."""

    @abstractmethod
    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """Where `find` looks."""

    @abstractmethod
    def self_check(self) -> None:
        """Score a few made-up rows, so that a broken metric shows before a long inference.

        Raises:
            RuntimeError: a metric does not give what it must.
        """

    @abstractmethod
    def run(self, predictor: Any, dataset: Any, found: FoundSet, options: Options) -> TaskOutput:
        """Predict and score; the predictor is of one of `kinds`, `dataset` is what `found.load` returned."""

    def averages(self, rows: Sequence[Row]) -> list[Row]:
        """Rows over all its sets, from one model's rows on each; a task whose sets stand alone has none."""
        return []


def name_dataset(dataset: str, rendered: bool) -> str:
    """A rendered set never carries the bare name of a real one."""
    return f"scenes-{dataset}" if rendered else dataset


def add_limit(protocol: str, options: Options) -> str:
    """The protocol, saying so where only the first images were scored."""
    return protocol if options.limit is None else f"{protocol}/first-{options.limit}-images"


def expect(what: str, got: object, wanted: object) -> None:
    """One line of a self-check."""
    if got != wanted:
        raise RuntimeError(
            f"self-check of {what}: made-up rows gave {got} instead of {wanted}; the metric is broken on this "
            f"installation (NumPy or SciPy changed?), nothing was measured"
        )
