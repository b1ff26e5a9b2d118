"""PaliGemma (`PaliGemmaForConditionalGeneration`): one linear layer on the last hidden state, no chat template."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import STOCK, WRAPPER, FeatureLayer, HostFamily, Settings


class PaliGemma(HostFamily):
    """Reads the last hidden state in full; the projector's width out is `projection_dim`, which stays."""

    model_type = "paligemma"
    model_class = PaliGemmaForConditionalGeneration
    processor_class = PaliGemmaProcessor
    cls = WRAPPER
    pyramid = STOCK
    entry = ("linear.weight", 1)
    reads_last = True
    needs_image = True

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor takes the number of tokens from its image processor."""
        return Settings(
            processor={"image_seq_length": facts.patches}, image_processor={"image_seq_length": facts.patches}
        )

    def inserted(self, processor: ProcessorMixin) -> int:
        """The start token stands behind the images."""
        return len(processor.tokenizer.bos_token)

    def trained_on(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Type 0 is the prompt, whose tokens all see each other; from the first answer on (type 1) none looks ahead."""
        answered = (labels >= 0).cumsum(dim=1) > 0
        return {**inputs, "token_type_ids": answered.to(inputs["input_ids"].dtype)}


PALIGEMMA = PaliGemma()
