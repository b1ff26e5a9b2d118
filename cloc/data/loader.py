"""The training loader: sources of shards in, one `Batch` a step for each rank out.

The step is the only cursor. Step s takes from each source the positions [s n, (s + 1) n) of its order, n being the
source's share of the global batch; rank r takes every world-th of them. Workers take whole steps in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from cloc.data.collate import Prepared, collate, decode_sample, prepare
from cloc.data.order import Order
from cloc.data.prompts import PromptSampler
from cloc.data.shards import ShardSet
from cloc.data.tables import TableSet
from cloc.structures import Batch, DataError

TRIED = 1000
"""Samples of a source that are looked at before it is given up."""


@dataclass(frozen=True, slots=True)
class Source:
    """One set of shards and its share of the global batch.

    Attributes:
        shards: the opened set of shards, or table.
        batch_size: samples a step takes from it, over all ranks.
    """

    shards: ShardSet | TableSet
    batch_size: int


def check_sources(sources: Sequence[Source], world: int) -> None:
    """Refuse a batch that the ranks or the shards cannot serve.

    Raises:
        ValueError: a source's batch is smaller than the number of ranks, does not divide among them, or is larger than
            the source.
    """
    for source in sources:
        name = source.shards.shards[0].parent
        if source.batch_size % world:
            raise ValueError(
                f"{name}: batch_size {source.batch_size} does not divide among {world} ranks; "
                f"use a multiple of {world}, such as {-(-source.batch_size // world) * world}, or fewer ranks"
            )
        if source.batch_size > source.shards.num_samples:
            raise ValueError(
                f"{name}: the batch takes {source.batch_size} samples a step, the shards hold "
                f"{source.shards.num_samples}; lower data.N.batch_size or add data"
            )


def check_readable(sources: Sequence[Source]) -> None:
    """Refuse a source of which no sample can be used; one that can be is found at once in any other.

    Raises:
        ValueError: all samples, or `TRIED` from all over the source, are damaged; the reasons are counted.
    """
    for source in sources:
        shards, total = source.shards, source.shards.num_samples
        reasons, first, tried = Counter[str](), "", min(total, TRIED)
        for number in (i * total // tried for i in range(tried)):
            shard, row = 0, number
            while row >= shards.counts[shard]:
                shard, row = shard + 1, row - shards.counts[shard]
            try:
                decode_sample(shards.read_sample(shard, row))
                break
            except DataError as error:
                reasons[error.reason] += 1
                first = first or str(error)
        else:
            counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
            raise ValueError(
                f"{shards.shards[0].parent}: none of the {tried:,} samples looked at, of {total:,}, can be used "
                f"({counted or 'there are none'}); first: {first}; look at it with `python -m cloc.check`"
            )


def check_bytes(sources: Sequence[Source]) -> None:
    """Compare every shard with the SHA-256 on its card; reads all of the data once.

    Raises:
        ValueError: a shard has other bytes than those that were written.
    """
    for source in sources:
        altered = list(source.shards.altered_shards()) if isinstance(source.shards, ShardSet) else []
        if altered:
            raise ValueError(
                f"{altered[0]}: its SHA-256 is not the one on its card ({len(altered)} such shards); copy it again, or "
                "make the set again"
            )


class StepBatches(IterableDataset):
    """The batches of one rank from a given step on.

    Args:
        sources: what the global batch is made of.
        tokenizer: for captions and phrases.
        image_size: side of the canvas in pixels.
        max_regions: M regions drawn an image, 0 for none.
        seed: the run's seed.
        rank, world: this rank and their number.
        first_step, last_step: steps [first, last) are produced.
        prompts: what regions are asked with; None: their box.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: PreTrainedTokenizerBase,
        image_size: int,
        max_regions: int,
        seed: int,
        rank: int,
        world: int,
        first_step: int,
        last_step: int,
        prompts: PromptSampler | None = None,
    ) -> None:
        super().__init__()
        self.sources, self.tokenizer = tuple(sources), tokenizer
        self.image_size, self.max_regions, self.seed, self.prompts = image_size, max_regions, seed, prompts
        self.rank, self.world, self.first_step, self.last_step = rank, world, first_step, last_step
        self.orders = [Order(source.shards.counts, seed) for source in sources]

    def batch(self, step: int) -> Batch:
        """The batch of this rank for one step; samples that cannot be used are left out and counted."""
        prepared, skipped = list[Prepared](), Counter[str]()
        for source, order in zip(self.sources, self.orders, strict=True):
            first = step * source.batch_size
            for position in range(first + self.rank, first + source.batch_size, self.world):
                epoch, shard, index = order.locate(position)
                try:
                    sample = source.shards.read_sample(shard, index)
                    prepared.append(prepare(sample, self.image_size, self.max_regions, self.seed, epoch, self.prompts))
                except DataError as error:
                    skipped[error.reason] += 1
        return collate(prepared, self.tokenizer, self.image_size, self.max_regions, skipped, self.prompts)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in range(self.first_step + offset, self.last_step, stride):
            yield self.batch(step)
