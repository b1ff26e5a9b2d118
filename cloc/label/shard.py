"""Labelling one shard: captions, phrases, boxes, regions. Nothing outside the shard changes what comes out."""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from cloc.data.shards import ShardSet
from cloc.images import ImageError, decode, is_strip
from cloc.jobs import ShardJob
from cloc.label.captioner import Captioner, load_captioner
from cloc.label.detectors import load_proposer
from cloc.label.proposals import Proposals, Proposer, to_regions
from cloc.label.settings import LabelSettings
from cloc.label.table1 import sum_samples
from cloc.phrases import Chunker, make_chunker
from cloc.structures import DataError, Sample

FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError)
"""What a model may raise over one image; running out of a device's memory is a RuntimeError."""
ALL_FAILED = 16
"""A shard of which this many images went into a model and none came out is no bad luck: the job stops."""
_AHEAD = 2

Loaded = list[tuple[Sample, Image.Image]]


@dataclass
class Tally:
    """What happened to the samples of one shard.

    Attributes:
        read: samples in the shard.
        dropped: samples and boxes left out, by reason.
        sums: see `table1.sum_samples`; and batches_repeated, one image at a time because they failed.
        answers: images for which the detector gave an answer.
        seconds: spent in the captioner and the detector, and in all.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


class DiskFullError(ValueError):
    """There was no room for a shard; the finished ones stay, and the same command goes on with them."""


class ModelsFailedError(ValueError):
    """The models failed on so many images that going on would only waste them."""


@dataclass
class Labeller:
    """The loaded models, and the settings that they work with."""

    settings: LabelSettings
    proposer: Proposer
    captioner: Captioner | None
    chunker: Chunker
    _last: str = field(default="", init=False)

    @classmethod
    def load(cls, settings: LabelSettings, device: str | None = None) -> Labeller:
        """Load what the settings name, on `device` (`cuda:1`) where it is given.

        Raises:
            ValueError: a model cannot be loaded.
        """
        device = device or settings.device
        chunker = make_chunker(settings.chunker, settings.generic_words)
        s, captioner = settings, None
        if s.captioner is not None:
            captioner = load_captioner(s.captioner, s.caption_prompt, s.caption_tokens, device, s.precision)
        return cls(s, load_proposer(s.detector, s.size, s.score, device, s.precision), captioner, chunker)

    def samples(
        self, shards: ShardSet, number: int, tally: Tally, advance: Callable[[int], None] | None = None
    ) -> Iterator[Sample]:
        """The labelled samples of one shard in its order.

        Args:
            shards: the image-text shards.
            number: which of them.
            tally: filled in on the way.
            advance: called after each batch with how many samples it had.

        Raises:
            ModelsFailedError: the models failed on every one of many images.
        """
        start = time.perf_counter()
        tally.dropped.update(shards.index(number).dropped)
        for numbers, loaded, problems in _load_batches(shards, number, self.settings.batch):
            tally.read += len(numbers)
            tally.dropped.update(problems)
            done = self._label(loaded, tally)
            failed = tally.dropped["model_failed"]
            if failed >= ALL_FAILED and not tally.answers:
                raise ModelsFailedError(
                    f"{shards.shards[number]}: the models failed on all of the first {failed} images ({self._last}); "
                    "try a smaller --batch, another --precision or another model"
                )
            tally.sums.update(sum_samples(done))
            yield from done
            if advance is not None:
                advance(len(numbers))
        tally.seconds["all"] += time.perf_counter() - start

    def _label(self, batch: Loaded, tally: Tally) -> list[Sample]:
        """Label a batch; where it fails, its images one by one, so that only those are lost that fail alone."""
        if not batch:
            return []
        try:
            return self._label_batch(batch, tally)
        except FAILURES as error:
            self._last = f"{type(error).__name__}: {error}".splitlines()[0]
            if len(batch) == 1:
                tally.dropped["model_failed"] += 1
                return []
        tally.sums["batches_repeated"] += 1
        return [sample for one in batch for sample in self._label([one], tally)]

    def _label_batch(self, batch: Loaded, tally: Tally) -> list[Sample]:
        captions, given = self._captions(batch, tally)
        phrases = [self.chunker(caption, self.settings.phrases) for caption in captions]
        asked = [i for i, row in enumerate(phrases) if row]
        start = time.perf_counter()
        images, rows = [batch[i][1] for i in asked], [phrases[i] for i in asked]
        found = dict(zip(asked, self.proposer.propose(images, rows) if asked else [], strict=True))
        tally.seconds["detector"] += time.perf_counter() - start
        tally.answers += len(asked)
        samples, dropped = [], Counter[str]()
        for i, (sample, _) in enumerate(batch):
            done, left = self._labelled(sample, captions[i], given[i], phrases[i], found.get(i))
            samples.append(done)
            dropped.update(left)
        tally.dropped.update(dropped)
        return samples

    def _captions(self, batch: Loaded, tally: Tally) -> tuple[list[str], list[str | None]]:
        """The captions to use, and the given ones where another was written."""
        given = [sample.caption for sample, _ in batch]
        if self.captioner is None:
            return given, [None] * len(given)
        start = time.perf_counter()
        written = self.captioner.caption([image for _, image in batch])
        tally.seconds["captioner"] += time.perf_counter() - start
        used = [new or old for new, old in zip(written, given, strict=True)]
        return used, [old if new else None for new, old in zip(written, given, strict=True)]

    def _labelled(
        self, sample: Sample, caption: str, given: str | None, phrases: Sequence[str], found: Proposals | None
    ) -> tuple[Sample, Counter[str]]:
        """One sample with its new regions; the given regions go, and are counted."""
        s, dropped = self.settings, Counter[str]()
        regions = ()
        if found is not None:
            size = (sample.width, sample.height)
            regions, dropped = to_regions(found, phrases, size, s.score, s.nms, s.max_boxes)
        dropped["given_region_replaced"] += len(sample.regions)
        extras = dict(sample.extras)
        if given is not None:
            extras["given_caption"] = given
            extras.pop("captions", None)  # a reader may draw any of them, and the boxes follow the new caption
        done = replace(sample, caption=caption, regions=regions, extras=extras, dropped=Counter())
        return done, dropped


def _load_batches(shards: ShardSet, number: int, size: int) -> Iterator[tuple[Sequence[int], Loaded, Counter[str]]]:
    """(sample numbers, decoded samples, problems by reason), batch by batch; read ahead while the models work."""
    waiting: list[tuple[Sequence[int], Future]] = []
    with ThreadPoolExecutor(1) as reader:
        for numbers in _split_batches(shards.counts[number], size):
            waiting.append((numbers, reader.submit(_load, shards, number, numbers)))
            if len(waiting) > _AHEAD:
                numbers, future = waiting.pop(0)
                yield numbers, *future.result()
        for numbers, future in waiting:
            yield numbers, *future.result()


def _load(shards: ShardSet, number: int, numbers: Sequence[int]) -> tuple[Loaded, Counter[str]]:
    loaded, problems = [], Counter[str]()
    for i in numbers:
        try:
            sample = shards.read_sample(number, i)
            image = decode(sample.image, (sample.width, sample.height))
        except DataError as error:
            problems[error.reason] += 1
            continue
        except ImageError as error:
            other = error.reason in ("other_size", "swapped_sides")
            problems["image_of_other_size" if other else "image_unreadable"] += 1
            continue
        if is_strip(image.size):
            problems["image_is_strip"] += 1  # the models' processors would need memory far beyond the image's
            continue
        loaded.append((sample, image))
    return loaded, problems


def _split_batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def label_one(
    job: ShardJob, shards: ShardSet, number: int, labeller: Labeller, advance: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Label shard `number`.

    Args:
        job: where it is written.
        shards: the image-text shards.
        number: which of them.
        labeller: loaded models.
        advance: called after each batch with how many samples it had.

    Returns:
        Seconds spent in the models and in all.

    Raises:
        DiskFullError: there is no room for it; nothing of it is left.
    """
    tally = Tally()

    def more() -> dict[str, Any]:
        return {"read": tally.read, "sums": tally.sums}

    try:
        job.write(number, labeller.samples(shards, number, tally, advance), tally.dropped, more)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFullError(_describe_full_disk(job.folder, shards)) from error
    return dict(tally.seconds)


def estimate_bytes(shards: ShardSet, numbers: Iterable[int]) -> int:
    """About how much disk these shards take with labels, which add little to the images."""
    return int(1.02 * sum(shards.shards[number].stat().st_size for number in numbers))


def _describe_full_disk(folder: Path, shards: ShardSet) -> str:
    to_come = [number for number in range(len(shards.shards)) if not (folder / f"{number:06d}.json").is_file()]
    free = shutil.disk_usage(folder).free
    return (
        f"{folder}: the disk is full; the {len(to_come):,} shards to come take about "
        f"{estimate_bytes(shards, to_come) / 1e9:,.3g} GB, {free / 1e9:,.3g} GB are free. Make room and give the same "
        "command again: what is finished stays"
    )
