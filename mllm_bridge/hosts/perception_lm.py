"""Perception LM (`PerceptionLMForConditionalGeneration`): an overview and tiles, the last hidden state, pooled."""

from __future__ import annotations

from typing import Any

from transformers import (
    PerceptionLMForConditionalGeneration,
    PerceptionLMProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import STOCK, FeatureLayer, HostFamily, Settings


class PerceptionLM(HostFamily):
    """A flag says whether token 0 is dropped; the projector takes its width from the arguments for timm."""

    model_type = "perception_lm"
    model_class = PerceptionLMForConditionalGeneration
    processor_class = PerceptionLMProcessor
    pyramid = STOCK
    own_image_processor = False
    reads_last = True
    batches = False

    def image_tokens(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """Pooled.

        Raises:
            ValueError: the grid does not divide by the pooling.
        """
        pooling = config.get("projector_pooling_ratio", self.default("projector_pooling_ratio"))
        side = facts.image_size // facts.patch_size
        if side % pooling:
            raise ValueError(
                f"encoder: its grid of {side} x {side} tokens does not divide by the host's pooling of {pooling}; use "
                f"an image size that is a multiple of {pooling * facts.patch_size} px"
            )
        return (side // pooling) ** 2

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """Tiles of the tower's size."""
        pooling = config.get("projector_pooling_ratio", self.default("projector_pooling_ratio"))
        size = facts.image_size
        return Settings(
            config={"vision_use_cls_token": bool(facts.extra_tokens)},
            processor={"patch_size": facts.patch_size, "pooling_ratio": pooling},
            image_processor={"tile_size": size, "size": {"height": size, "width": size}},
            vision={"model_args": {"embed_dim": facts.width}},
        )


PERCEPTION_LM = PerceptionLM()
