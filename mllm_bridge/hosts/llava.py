"""LLaVA as transformers has it (`LlavaForConditionalGeneration`): one hidden state or more, a two-layer projector."""

from __future__ import annotations

from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from mllm_bridge.hosts.counting import StrategyHost
from mllm_bridge.hosts.family import STOCK
from mllm_bridge.hosts.tiny_parts import TinyParts, make_counting_processor


class Llava(StrategyHost):
    """Reads layer -2 unless told otherwise."""

    model_type = "llava"
    model_class = LlavaForConditionalGeneration
    processor_class = LlavaProcessor
    pyramid = STOCK

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """A LLaVA set as LLaVA-1.5 is: layer -2, CLS dropped."""
        config = LlavaConfig(
            vision_config=parts.tower,
            text_config=LlamaConfig(**parts.text),
            image_token_index=parts.tokenizer.convert_tokens_to_ids(self.image_token),
            image_seq_length=parts.patches,
        )
        processor = make_counting_processor(self.processor_class, parts, parts.image_processor, self.image_token, 1)
        return LlavaForConditionalGeneration(config), processor


LLAVA = Llava()
