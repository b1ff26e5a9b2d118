"""Gemma 3 (`Gemma3ForConditionalGeneration`): the last hidden state, pooled to a fixed number of tokens."""

from __future__ import annotations

import math
from typing import Any

from transformers import (
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import WRAPPER, FeatureLayer, HostFamily, Settings


class Gemma3(HostFamily):
    """Pools by whole patches, so the grid has to divide; norms with the tower's own `layer_norm_eps`."""

    model_type = "gemma3"
    model_class = Gemma3ForConditionalGeneration
    processor_class = Gemma3Processor
    cls = WRAPPER
    entry = ("mm_input_projection_weight", 0)
    own_image_processor = False
    reads_last = True
    image_token = "<start_of_image>"

    def image_tokens(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """As many as before, whatever the tower.

        Raises:
            ValueError: the tower's grid does not divide by the tokens a side.
        """
        tokens = config.get("mm_tokens_per_image") or self.default("mm_tokens_per_image")
        side, wanted = facts.image_size // facts.patch_size, math.isqrt(tokens)
        if side % wanted:
            raise ValueError(
                f"encoder: its grid of {side} x {side} tokens cannot be pooled to the {wanted} x {wanted} of this "
                f"host; use an image size that is a multiple of {wanted * facts.patch_size} px"
            )
        return tokens

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The number of tokens stays."""
        tokens = self.image_tokens(config, facts)
        return Settings(
            config={"mm_tokens_per_image": tokens},
            processor={"image_seq_length": tokens},
            image_processor={"size": {"height": facts.image_size, "width": facts.image_size}},
        )

    def placeholder_id(self, processor: ProcessorMixin) -> int | None:
        """What the processor calls its image token is the one that begins an image."""
        return processor.tokenizer.image_token_id


GEMMA3 = Gemma3()
