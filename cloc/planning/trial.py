"""A recipe's training step and its loader on the spot, so that both can be timed; nothing is learnt or written.

Letters: B images, M prompts an image, U phrases, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from cloc import build
from cloc.config import Config
from cloc.engine import Losses
from cloc.models.modeling import ClocModel
from cloc.models.tower import image_side
from cloc.planning.dry_step import Shapes
from cloc.stepper import Stepper
from cloc.structures import Batch


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Wall clock of one training step.

    Attributes:
        passes: forward and backward.
        whole: with gradient clip and optimiser.
    """

    passes: float
    whole: float


@dataclass(frozen=True)
class Trial:
    """A fresh model with its optimiser, and one batch that is stepped on again and again with a rate of 0.

    Attributes:
        batch: on the device of the model.
        stepper, losses: as a run has them.
    """

    batch: Batch
    stepper: Stepper
    losses: Losses

    @classmethod
    def start(cls, config: Config, shapes: Shapes, phrase_tokens: Sequence[int] | None = None) -> Trial:
        """Make the model of a recipe on the recipe's device, in plain torch.

        Args:
            config: the recipe; accumulation is left out.
            shapes: of the batch.
            phrase_tokens: (U,) real tokens of each phrase, ends included; all are full without it.
        """
        device = build.find_device(config)
        alone = config.model_copy(update={"train": config.train.model_copy(update={"accumulation": 1})})
        tokenizer = build.make_tokenizer(config)
        torch.manual_seed(config.run.seed)
        model = ClocModel(build.make_model_config(config, tokenizer)).to(device)
        stepper = build.make_stepper(alone, model, None)
        side = image_side(model.config.vision_config.tower)
        batch = made_up_batch(shapes, side, tokenizer.eos_token_id, phrase_tokens).to(device)
        return cls(batch, stepper, build.make_losses(alone, stepper))

    def step(self, number: int = 0) -> StepSeconds:
        """One whole step, `number` being what the losses take it for."""
        start = time.perf_counter()
        _, share = self.losses(self.batch, number)
        self.stepper.backward(share)
        finish(self.stepper.device)
        passes = time.perf_counter() - start
        self.stepper.step(0.0)
        finish(self.stepper.device)
        return StepSeconds(passes, time.perf_counter() - start)


def finish(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def loaded_batches(config: Config) -> Iterator[Batch]:
    """The recipe's batches as training gets them, read and decoded in this process.

    Raises:
        ValueError: a path holds no shards, or fewer samples than a batch.
    """
    return iter(build.make_batches(config, build.make_sources(config), build.make_tokenizer(config), 0))


def made_up_batch(shapes: Shapes, side: int, eos: int, phrase_tokens: Sequence[int] | None = None) -> Batch:
    """A batch of the given shapes: noise, and texts that end at their last real token.

    Args:
        shapes: B, M, U and T.
        side: of the images in pixels.
        eos: the token that ends a text, and pads it.
        phrase_tokens: (U,) as in `Trial.start`, each between 2 and the T of the phrases.
    """
    prompts, regions = max(shapes.prompts, 1), shapes.images * shapes.prompts
    phrases = shapes.phrases if regions else 0
    corners = torch.rand(shapes.images, prompts, 2) / 2
    captions = torch.randint(1, 300, (shapes.images, shapes.caption_tokens))
    captions[:, -1] = eos
    ids = torch.randint(1, 300, (phrases, shapes.phrase_tokens))
    lengths = torch.full((phrases,), shapes.phrase_tokens)
    if phrase_tokens is not None and phrases:
        lengths = torch.tensor(phrase_tokens)
    places = torch.arange(shapes.phrase_tokens)[None, :]
    ids[places >= lengths[:, None] - 1] = eos
    return Batch(
        pixel_values=torch.randn(shapes.images, 3, side, side),
        caption_ids=captions,
        caption_attention=torch.ones_like(captions),
        caption_image=torch.arange(shapes.images),
        boxes=torch.cat([corners, corners + 0.3], dim=-1),
        boxes_mask=torch.full((shapes.images, prompts), regions > 0),
        phrase_ids=ids,
        phrase_attention=(places < lengths[:, None]).long(),
        phrase_of_region=torch.arange(regions) % max(phrases, 1),
        phrase_text_id=torch.arange(phrases),
        unique_in_image=torch.ones(regions, dtype=torch.bool),
    )
