"""Batches of conversations, grouped by length. Which conversation comes when is a pure function of seed and position.

Letters: B conversations, L tokens, R regions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info
from transformers import ProcessorMixin

from cloc.box_text import BoxTextFormat
from cloc.images import ImageError, is_strip, read_photo
from cloc.structures import DataError
from mllm_bridge.conversations.answers import IGNORED, encode
from mllm_bridge.conversations.reading import IMAGE, REGION, Conversation, ImageRegion, Turn
from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.regions.prompts import inside, map_to_canvas

STAND_INS = 100
"""Batches that are tried in place of one that holds nothing usable, before the run ends."""
WINDOW = 32
"""Conversations are sorted by length within so many batches; the longest and shortest still meet all others."""


@dataclass(slots=True)
class ConversationBatch:
    """What one rank gets for one batch.

    Attributes:
        inputs: the host's own inputs by name, `input_ids` (B, L) among them.
        labels: (B, L) token ids where an answer stands, else -100.
        region_boxes: (R, 4) xyxy in [0, 1] of the host's canvas, in the order of their placeholders.
        region_image: (R,) the image of each, counted over the batch.
        keys: the conversations' ids, for messages.
        skipped: conversations left out of this batch, by reason.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    region_boxes: torch.Tensor
    region_image: torch.Tensor
    keys: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter)

    def to(self, device: torch.device | str) -> ConversationBatch:
        """The same batch on another device."""
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        moved = (value.to(device) for value in (self.labels, self.region_boxes, self.region_image))
        return ConversationBatch(inputs, *moved, self.keys, self.skipped)

    @property
    def answer_tokens(self) -> int:
        """Tokens that the loss is taken over; the first of a row has nothing before it."""
        return int((self.labels[:, 1:] != IGNORED).sum())


class LengthOrder:
    """Maps the number of a batch to conversations of about one length, all with images or all without.

    Args:
        lengths: of each conversation, any unit.
        pictured: whether each has an image; a batch holds one kind, as some hosts' processors ask for.
        batch: B, conversations a batch over all ranks.
        seed: the run's seed.
    """

    def __init__(self, lengths: Sequence[int], pictured: Sequence[bool], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed = np.asarray(lengths), batch, seed
        marks = np.asarray(pictured, dtype=bool)
        self.kinds = [np.flatnonzero(marks), np.flatnonzero(~marks)]
        self.num_batches = sum(-(-len(kind) // batch) for kind in self.kinds)
        self._epoch = lru_cache(maxsize=2)(self._batches_of_epoch)

    def _batches_of_epoch(self, epoch: int) -> list[np.ndarray]:
        draw = np.random.default_rng([self.seed, epoch])
        batches = []
        for kind in self.kinds:
            if not len(kind):
                continue
            # The last batch of an epoch is filled up from its start, so that nothing is left out.
            shuffled = np.resize(draw.permutation(kind), -(-len(kind) // self.batch) * self.batch)
            for start in range(0, len(shuffled), self.batch * WINDOW):
                window = shuffled[start : start + self.batch * WINDOW]
                window = window[np.argsort(self.lengths[window], kind="stable")]
                batches += np.split(window, len(window) // self.batch)
        return [batches[number] for number in draw.permutation(len(batches))]

    def locate(self, number: int) -> list[int]:
        """The conversations of one batch (0, 1, 2, ... without end)."""
        epoch, index = divmod(number, self.num_batches)
        return self._epoch(epoch)[index].tolist()


class BatchMaker:
    """Makes batches of conversations for one host.

    Args:
        processor: the host's.
        box_format: how boxes are written.
        region_tokens: `<region>` in a question stays a token; otherwise it becomes a box in text.
        max_tokens: longer conversations are left out and counted.
        family: of the host, which may ask for more than its processor gives.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        box_format: BoxTextFormat,
        region_tokens: bool,
        max_tokens: int,
        family: HostFamily,
    ) -> None:
        self.processor, self.box_format, self.family = processor, box_format, family
        self.region_tokens, self.max_tokens = region_tokens, max_tokens

    def make(self, conversations: Sequence[Conversation]) -> ConversationBatch:
        """Decode, write boxes, tokenise; what cannot be used is left out and counted."""
        ready, skipped = list[_Ready](), Counter[str]()
        for conversation in conversations:
            try:
                ready.append(self._ready(conversation))
            except DataError as error:
                skipped[error.reason] += 1
        inputs, labels, ready, real = self._encoded(ready, skipped)
        boxes, image_of = list[np.ndarray](), list[int]()
        first = 0
        for one in ready:
            for region in one.regions:
                size = one.images[region.image].size
                boxes.append(map_to_canvas(self.processor.image_processor, [region.box], size)[0])
                image_of.append(first + region.image)
            first += len(one.images)
        region_boxes = torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)
        keys = tuple(one.key for one in ready[:real])
        return ConversationBatch(inputs, labels, region_boxes, torch.tensor(image_of, dtype=torch.long), keys, skipped)

    def _encoded(
        self, ready: list[_Ready], skipped: Counter[str]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, list[_Ready], int]:
        """Inputs, labels, the rows, and how many of them are real; rows that are too long are left out."""
        real = len(ready)
        # One forward for every batch on every rank, and a gradient for every part, whatever the batch holds.
        if not any(one.images for one in ready) or (self.region_tokens and not any(one.regions for one in ready)):
            ready = [*ready, self._blank()]
        turns, images = [one.turns for one in ready], [one.images for one in ready]
        inputs, labels = encode(self.processor, turns, images, self.family.inserted(self.processor))
        inputs = self.family.trained_on(inputs, labels)
        labels[real:] = IGNORED
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        fitting = [one for one, length in zip(ready[:real], lengths, strict=False) if length <= self.max_tokens]
        if len(fitting) == real:
            return inputs, labels, ready, real
        skipped["too_long"] += real - len(fitting)
        return self._encoded(fitting, skipped)

    def _ready(self, conversation: Conversation) -> _Ready:
        images = []
        for file in conversation.images:
            try:
                images.append(read_photo(file))
            except ImageError as error:
                raise DataError("bad_image", f"{conversation.key}: {file}: {error}") from error
            if is_strip(images[-1].size):  # the host's processor would need memory far beyond the image's
                raise DataError("image_is_strip", f"{conversation.key}: {file}: {images[-1].size}")
        regions = [
            replace(region, box=inside(region.box, images[region.image].size, conversation.key))
            for region in conversation.regions
        ]
        turns, kept = write_boxes(conversation.turns, regions, images, self.box_format, self.region_tokens)
        return _Ready(conversation.key, turns, tuple(images), kept)

    def _blank(self) -> _Ready:
        image = Image.new("RGB", (8, 8))
        marker = f" {REGION}" if self.region_tokens else ""
        turns = (Turn("user", f"{IMAGE}\n.{marker}"), Turn("assistant", "."))
        regions = (ImageRegion((0.0, 0.0, 8.0, 8.0)),) if self.region_tokens else ()
        return _Ready("", turns, (image,), regions)


@dataclass(frozen=True, slots=True)
class _Ready:
    key: str
    turns: tuple[Turn, ...]
    images: tuple[Image.Image, ...]
    regions: tuple[ImageRegion, ...]


def write_boxes(
    turns: Sequence[Turn],
    regions: Sequence[ImageRegion],
    images: Sequence[Image.Image],
    convention: BoxTextFormat,
    keep: bool,
) -> tuple[tuple[Turn, ...], tuple[ImageRegion, ...]]:
    """Put boxes in text where `<region>` stands; with `keep` those in questions stay as they are.

    Returns:
        The turns, and the regions of the markers that stayed.
    """
    written, kept, waiting = [], [], iter(regions)
    for turn in turns:
        first, *rest = turn.text.split(REGION)
        for text in rest:
            region = next(waiting)
            if keep and turn.role != "assistant":
                kept.append(region)
                first += REGION + text
            else:
                first += convention.write(region.box, images[region.image].size) + text
        written.append(Turn(turn.role, first))
    return tuple(written), tuple(kept)


class TuneBatches(IterableDataset):
    """The batches of one rank, from a batch number on.

    Args:
        conversations: all of them.
        order: which conversations a batch takes.
        maker: makes the batch.
        rank: this rank.
        world: how many ranks; the rank takes every world-th conversation of a batch.
        first: number of the first batch.
        last: number behind the last batch.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        order: LengthOrder,
        maker: BatchMaker,
        rank: int,
        world: int,
        first: int,
        last: int,
    ) -> None:
        super().__init__()
        self.conversations, self.order, self.maker = conversations, order, maker
        self.rank, self.world, self.first, self.last = rank, world, first, last

    def batch(self, number: int) -> ConversationBatch:
        """The batch of this rank with one number; where nothing in it can be used, the next that holds something.

        What was left out of the batch itself is counted; a stand-in's own losses are counted when its turn comes.
        """
        made = self._made(number)
        for later in range(number + 1, number + 1 + min(STAND_INS, self.order.num_batches)):
            if made.keys:
                break
            made = replace(self._made(later), skipped=made.skipped)
        return made

    def _made(self, number: int) -> ConversationBatch:
        chosen = self.order.locate(number)[self.rank :: self.world]
        return self.maker.make([self.conversations[index] for index in chosen])

    def __iter__(self) -> Iterator[ConversationBatch]:
        worker = get_worker_info()
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(self.first + offset, self.last, stride):
            yield self.batch(number)
