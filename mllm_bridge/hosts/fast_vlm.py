"""FastVLM (`FastVlmForConditionalGeneration`): reads its tower's last hidden state as a map."""

from __future__ import annotations

from typing import Any

from transformers import (
    FastVlmForConditionalGeneration,
    LlavaProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.counting import StrategyHost
from mllm_bridge.hosts.family import WRAPPER, FeatureLayer, Settings


class FastVlm(StrategyHost):
    """Every tower comes through the wrapper, which gives (B, C, G, G); layer -1 in full is all that it knows."""

    model_type = "fast_vlm"
    model_class = FastVlmForConditionalGeneration
    processor_class = LlavaProcessor
    cls = WRAPPER
    plain = WRAPPER
    wants_map = True
    reads_last = True

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The only layer that its config allows."""
        return super().settings(config, facts, -1)


FAST_VLM = FastVlm()
