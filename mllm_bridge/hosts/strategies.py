"""What the hosts share that name a layer and a strategy: `default` drops token 0 whatever it is, `full` drops none."""

from __future__ import annotations

from typing import Any

from transformers import ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings
from mllm_bridge.hosts.tiny_parts import TinyParts


def strategy(facts: TowerFacts) -> str:
    """`default` where there is a CLS token to drop."""
    return "default" if facts.extra_tokens else "full"


def counting_processor(
    host: HostFamily, parts: TinyParts, image_processor: BaseImageProcessor, extra_tokens: int
) -> ProcessorMixin:
    """A tiny host's own processor, where it counts by patch size, extra tokens and strategy."""
    return host.processor_class(
        image_processor,
        parts.tokenizer,
        patch_size=parts.patch,
        vision_feature_select_strategy="default" if extra_tokens else "full",
        num_additional_image_tokens=extra_tokens,
        chat_template=parts.chat_template,
        image_token=host.image_token,
    )


class StrategyHost(HostFamily):
    """Config and processor both name the strategy, and the processor counts by patch size and extra tokens."""

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor counts patches plus extra tokens, less one for the strategy `default`; the config agrees."""
        side = {"height": facts.image_size, "width": facts.image_size}
        return Settings(
            config={
                "image_seq_length": self.image_tokens(config, facts),
                "vision_feature_layer": layer,
                "vision_feature_select_strategy": strategy(facts),
            },
            processor={
                "patch_size": facts.patch_size,
                "num_additional_image_tokens": facts.extra_tokens,
                "vision_feature_select_strategy": strategy(facts),
            },
            # The processor counts by crop_size when it sees no image, so it is set even where nothing is cropped.
            image_processor={"crop_size": side},
        )
