"""A recipe's training step and its loader on the spot, so that both can be timed; nothing is learnt or written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from cloc import factory
from cloc.config import Config
from cloc.device import find_device
from cloc.plan.batch_shapes import ConceptShapes, Shapes
from cloc.plan.synthetic_batch import asked_with, made_up_batch, made_up_concepts
from cloc.structures import Batch, ConceptBatch
from cloc.towers.tower import image_side, patch_grid
from cloc.train.engine import Losses
from cloc.train.stepper import Stepper


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
    """A recipe's model with its optimiser, and one batch that is stepped on again and again with a rate of 0.

    Attributes:
        batch: on the device of the model.
        stepper, losses: as a run has them.
    """

    batch: Batch | ConceptBatch
    stepper: Stepper
    losses: Losses

    @classmethod
    def start(cls, config: Config, shapes: Shapes | ConceptShapes, phrase_tokens: Sequence[int] | None = None) -> Trial:
        """Make the model of a recipe on the recipe's device, in plain torch.

        Args:
            config: the recipe; accumulation is left out.
            shapes: of the batch.
            phrase_tokens: (U,) real tokens of each phrase, ends included; all are full without it.
        """
        device = find_device(config.run.device, "run.device")
        alone = config.model_copy(update={"train": config.train.model_copy(update={"accumulation": 1})})
        tokenizer = factory.make_tokenizer(config)
        model = factory.scratch_model(factory.make_model_config(config, tokenizer), config.run.seed)
        model.to(device)  # type: ignore[arg-type]  # transformers wraps it without its type
        taught = config.loss.distillation > 0  # a start from scratch costs what one from old weights does
        tower, projection = model.vision.tower, model.vision.visual_projection
        teacher = factory.teacher.Teacher(tower, projection, config.run.precision == "bf16") if taught else None
        stepper = factory.make_stepper(alone, model, None)
        batch: Batch | ConceptBatch
        if isinstance(shapes, ConceptShapes):
            batch = made_up_concepts(shapes, tokenizer.eos_token_id)
        else:
            tower_config = model.config.vision_config.tower
            batch = made_up_batch(shapes, image_side(tower_config), tokenizer.eos_token_id, phrase_tokens)
            if shapes.kinds != ("box",):
                batch = asked_with(batch, shapes.kinds, patch_grid(tower_config))
        return cls(batch.to(device), stepper, factory.make_losses(alone, stepper, teacher))

    def step(self, number: int = 0) -> StepSeconds:
        """One whole step, `number` being what the losses take it for."""
        start = time.perf_counter()
        _, share = self.losses(cast("Batch", self.batch), number)
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
    return iter(factory.make_batches(config, factory.make_sources(config), factory.make_tokenizer(config), 0))
