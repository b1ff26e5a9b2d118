"""ViP-LLaVA (`VipLlavaForConditionalGeneration`): five layers side by side, token 0 always dropped."""

from __future__ import annotations

from typing import Any

from transformers import (
    LlavaProcessor,
    VipLlavaForConditionalGeneration,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import WRAPPER, FeatureLayer, HostFamily, Settings


class VipLlava(HostFamily):
    """Has no strategy: a tower without CLS comes through the wrapper, which puts a token in front to be dropped."""

    model_type = "vipllava"
    model_class = VipLlavaForConditionalGeneration
    processor_class = LlavaProcessor
    plain = WRAPPER
    pyramid = WRAPPER
    leading_token = True

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor counts patches and one more, and takes one away again, whatever the tower is."""
        return Settings(
            config={"image_seq_length": facts.patches, "vision_feature_layer": layer},
            processor={
                "patch_size": facts.patch_size,
                "num_additional_image_tokens": 1,
                "vision_feature_select_strategy": "default",
            },
            image_processor={"crop_size": {"height": facts.image_size, "width": facts.image_size}},
        )


VIPLLAVA = VipLlava()
