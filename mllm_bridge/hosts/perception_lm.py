"""Perception LM (`PerceptionLMForConditionalGeneration`): an overview and tiles, the last hidden state, pooled."""

from __future__ import annotations

from typing import Any

from transformers import (
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PerceptionLMImageProcessor,
    PerceptionLMProcessor,
    PerceptionLMVideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import STOCK, FeatureLayer, HostFamily, Settings
from mllm_bridge.hosts.tiny_parts import TinyParts


class PerceptionLM(HostFamily):
    """A flag says whether token 0 is dropped; the projector takes its width from the arguments for timm."""

    model_type = "perception_lm"
    model_class = PerceptionLMForConditionalGeneration
    processor_class = PerceptionLMProcessor
    pyramid = STOCK
    own_image_processor = False
    reads_last = True
    batches = False
    special_tokens = {"image_token": "<image>", "video_token": "<video>"}  # noqa: RUF012

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

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """At most four tiles, pooled two by two."""
        parts.tower.model_args = {"embed_dim": parts.tower.hidden_size}
        config = PerceptionLMConfig(
            vision_config=parts.tower,
            text_config=self.text_config_class(**parts.text),
            image_token_id=parts.tokenizer.image_token_id,
            video_token_id=parts.tokenizer.video_token_id,
            projector_pooling_ratio=2,
        )
        processor = PerceptionLMProcessor(
            PerceptionLMVideoProcessor(size=parts.side),
            PerceptionLMImageProcessor(tile_size=parts.size, size=parts.side, max_num_tiles=4),
            parts.tokenizer,
            patch_size=parts.patch,
            pooling_ratio=2,
            chat_template=parts.chat_template,
        )
        return PerceptionLMForConditionalGeneration(config), processor


PERCEPTION_LM = PerceptionLM()
