"""The teacher of `loss.distillation`: the image side as it was before the first step.

It is no part of the model, so it is in no checkpoint and no export; a resumed run makes it again from the same source.
Its target is the image embedding, which zero-shot tasks and retrieval read, and not the patch tokens: these are what
the region terms have to change. Where the source brings no projection (SigLIP, timm), the new one's start is used, a
random map, which keeps angles roughly.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from cloc.config import Config
from cloc.models.modeling import ClocModel
from cloc.structures import Batch
from cloc.towers.tower import encode
from cloc.train.grad_cache import JoinedBatch


class Teacher:
    """A frozen copy of tower and projection.

    Args:
        tower: of the starting weights.
        projection: to the shared space.
        bf16: run under autocast, as the student does.
    """

    def __init__(self, tower: PreTrainedModel, projection: nn.Linear, bf16: bool) -> None:
        self.tower = copy.deepcopy(tower).eval().requires_grad_(False)
        self.projection = copy.deepcopy(projection).eval().requires_grad_(False)
        self.bf16 = bf16

    def __call__(self, batch: Batch | JoinedBatch) -> torch.Tensor:
        """(B, E) unit norm, on the teacher's device; of micro-batches one after the other."""
        parts = batch.parts if isinstance(batch, JoinedBatch) else (batch,)
        return torch.cat([self._embed(part.pixel_values) for part in parts])

    @torch.no_grad()
    def _embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        device = self.projection.weight.device
        if len(pixel_values) == 0:
            return self.projection.weight.new_zeros(0, self.projection.weight.shape[0])
        with torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext():
            _, pooled = encode(self.tower, pixel_values.to(device))
            return F.normalize(self.projection(pooled), dim=-1)


def make_teacher(config: Config, model: ClocModel) -> Teacher | None:
    """A copy of the image side of a model that holds its starting weights, None where nothing asks for it.

    To be made on the model's device before it is wrapped: DeepSpeed's ZeRO 3 scatters weights.

    Raises:
        ValueError: the run starts from scratch, so that there is nothing worth staying near.
    """
    if not config.loss.distillation:
        return None
    sources: Sequence[str | None] = (config.model.source, config.model.vision.source)
    if not any(sources):
        raise ValueError(
            f"loss.distillation {config.loss.distillation:g}: the vision tower starts from scratch, there is no "
            "teacher; set model.vision.source or model.source, or loss.distillation=0"
        )
    return Teacher(model.vision.tower, model.vision.visual_projection, config.run.precision == "bf16")
