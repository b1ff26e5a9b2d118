"""Command A Vision (`Cohere2VisionForConditionalGeneration`): tiles, folded patches, the last hidden state."""

from __future__ import annotations

from typing import Any

from transformers import (
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.counting import ShuffleHost
from mllm_bridge.hosts.family import STOCK, WRAPPER, FeatureLayer, Settings


class Cohere2Vision(ShuffleHost):
    """Reads the last hidden state in full, so a CLS token has to be cut off by the wrapper."""

    model_type = "cohere2_vision"
    model_class = Cohere2VisionForConditionalGeneration
    processor_class = Cohere2VisionProcessor
    cls = WRAPPER
    pyramid = STOCK
    reads_last = True

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """What the processor calls its patch size is the number of tokens a side of a tile."""
        tokens = self.tokens_a_side(config, facts)
        return Settings(
            processor={"patch_size": tokens},
            image_processor={
                "size": {"height": facts.image_size, "width": facts.image_size},
                "patch_size": tokens,
            },
        )


COHERE2_VISION = Cohere2Vision()
