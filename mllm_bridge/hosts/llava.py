"""LLaVA as transformers has it (`LlavaForConditionalGeneration`): one hidden state or more, a two-layer projector."""

from __future__ import annotations

from typing import Any

from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.hosts.family import STOCK
from mllm_bridge.hosts.strategies import StrategyHost, counting_processor


class Llava(StrategyHost):
    """Reads layer -2 unless told otherwise."""

    model_type = "llava"
    model_class = LlavaForConditionalGeneration
    processor_class = LlavaProcessor
    pyramid = STOCK

    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text: dict[str, Any],
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Set as LLaVA-1.5 is: layer -2, CLS dropped."""
        config = LlavaConfig(
            vision_config=tower_config,
            text_config=self.text_config_class(**text),
            image_token_index=tokenizer.convert_tokens_to_ids(self.image_token),
            image_seq_length=(tower_config.image_size // tower_config.patch_size) ** 2,
        )
        processor = counting_processor(self, image_processor, tokenizer, tower_config.patch_size, 1, chat_template)
        return LlavaForConditionalGeneration(config), processor


LLAVA = Llava()
