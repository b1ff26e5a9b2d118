"""One loss over all micro-batches of a step, exact, in the memory of one (GradCache, arXiv 2101.06983).

First the features of every micro-batch are computed without a graph, then the loss over all of them gives the gradient
of every feature, then each micro-batch runs again and its features' gradients are pushed back through the model.
Every figure is that of one large batch; the price is a second forward pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cloc.structures import Batch, Outputs
from cloc.train.stepper import Stepper

SCALARS = ("logit_scale", "region_logit_scale", "logit_bias", "region_logit_bias")


@dataclass(frozen=True, slots=True)
class JoinedBatch:
    """The micro-batches of one step, and the batch that they are together.

    Attributes:
        parts: the micro-batches; they stay where they are until their turn comes.
        whole: what the losses read of all of them: boxes, masks and indices. Pixels and tokens are left to the parts.
    """

    parts: tuple[Batch, ...]
    whole: Batch

    @property
    def keys(self) -> tuple[str, ...]:
        """See `Batch`."""
        return self.whole.keys

    @property
    def skipped(self) -> Counter[str]:
        """See `Batch`."""
        return self.whole.skipped

    def to(self, device: torch.device | str) -> JoinedBatch:
        """The same with `whole` on another device."""
        return JoinedBatch(self.parts, self.whole.to(device))


def join(parts: Sequence[Batch]) -> JoinedBatch:
    """Put micro-batches together. Equal phrases of two micro-batches stay two rows with one `phrase_text_id`."""
    images = _starts([len(part.pixel_values) for part in parts])
    phrases = _starts([len(part.phrase_ids) for part in parts])
    skipped = Counter[str]()
    for part in parts:
        skipped.update(part.skipped)
    tokens = torch.zeros(sum(len(part.caption_ids) for part in parts), 0, dtype=torch.int64)
    words = torch.zeros(sum(len(part.phrase_ids) for part in parts), 0, dtype=torch.int64)
    whole = Batch(
        pixel_values=torch.zeros(sum(len(part.pixel_values) for part in parts), 0),
        caption_ids=tokens,
        caption_attention=tokens,
        caption_image=torch.cat([part.caption_image + first for part, first in zip(parts, images, strict=True)]),
        boxes=torch.cat([part.boxes for part in parts]),
        boxes_mask=torch.cat([part.boxes_mask for part in parts]),
        phrase_ids=words,
        phrase_attention=words,
        phrase_of_region=torch.cat([part.phrase_of_region + at for part, at in zip(parts, phrases, strict=True)]),
        phrase_text_id=torch.cat([part.phrase_text_id for part in parts]),
        unique_in_image=torch.cat([part.unique_in_image for part in parts]),
        keys=tuple(key for part in parts for key in part.keys),
        skipped=skipped,
    )
    return JoinedBatch(tuple(parts), whole)


def joined(batches: Iterable[Batch], count: int) -> Iterator[JoinedBatch]:
    """Every `count` batches as one; a rest at the end is no step and is left."""
    parts: list[Batch] = []
    for batch in batches:
        parts.append(batch)
        if len(parts) == count:
            yield join(parts)
            parts = []


class CachedStepper:
    """A stepper whose features are those of all micro-batches; the wrapped one runs them.

    Args:
        inner: plain torch or DeepSpeed, set up for `accumulation` backward passes a step.
        accumulation: micro-batches a step.
        inputs: the model's arguments of a batch.
    """

    def __init__(self, inner: Stepper, accumulation: int, inputs: Callable[[Batch], dict[str, torch.Tensor]]) -> None:
        self.inner, self.accumulation, self.inputs = inner, accumulation, inputs
        self.device = inner.device
        self._parts: tuple[Batch, ...] = ()
        self._leaves: list[dict[str, torch.Tensor]] = []
        self._random: list[list[torch.Tensor]] = []

    def forward(self, parts: Sequence[Batch]) -> Outputs:
        """The features of all micro-batches, from which gradients reach no weight before `backward`."""
        assert len(parts) == self.accumulation
        self._parts, self._leaves, self._random = tuple(parts), [], []
        for part in parts:
            self._random.append(_random_state(self.device))
            with torch.no_grad():
                outputs = self._run(part)
            self._leaves.append({k: v.detach().requires_grad_() for k, v in outputs.items()})
        names = self._leaves[0]
        return Outputs(**{name: _together([leaves[name] for leaves in self._leaves], name) for name in names})

    def _run(self, part: Batch) -> Outputs:
        return self.inner.forward(**self.inputs(part.to(self.device)))

    def backward(self, share: torch.Tensor) -> None:
        """Find the gradients of the features, then push them back, one micro-batch after the other."""
        share.backward()
        for part, leaves, random in zip(self._parts, self._leaves, self._random, strict=True):
            _set_random_state(random, self.device)  # dropout, where there is any, must fall on the same places
            outputs = self._run(part)
            pushed = [
                (outputs[name] * (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)).sum()
                for name, leaf in leaves.items()
            ]
            self.inner.backward(torch.stack([term.to(share.dtype) for term in pushed]).sum() * self.accumulation)
        self._parts, self._leaves = (), []

    def step(self, rate: float, number: float = math.inf) -> float:
        """See `Stepper`."""
        return self.inner.step(rate, number)

    def save(self, folder: Path) -> None:
        """See `Stepper`."""
        self.inner.save(folder)

    def load(self, folder: Path) -> None:
        """See `Stepper`."""
        self.inner.load(folder)

    def weights(self) -> dict[str, torch.Tensor]:
        """See `Stepper`."""
        return self.inner.weights()


def _together(values: list[torch.Tensor], name: str) -> torch.Tensor:
    """Rows one after the other; a scalar is the same everywhere, and its mean gives every micro-batch its part."""
    return torch.stack(values).mean(0) if name in SCALARS else torch.cat(values)


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:number]) for number in range(len(sizes))]


def _random_state(device: torch.device) -> list[torch.Tensor]:
    state = [torch.get_rng_state()]
    return [*state, torch.cuda.get_rng_state(device)] if device.type == "cuda" else state


def _set_random_state(state: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
