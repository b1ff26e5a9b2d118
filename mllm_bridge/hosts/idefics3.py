"""Idefics3 (`Idefics3ForConditionalGeneration`): SigLIP's tensors under its own tower class, by name."""

from __future__ import annotations

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedModel,
    ProcessorMixin,
)

from mllm_bridge.hosts.named import FIELDS, NamedHost
from mllm_bridge.hosts.tiny_parts import TinyParts


class Idefics3(NamedHost):
    """Takes SigLIP towers."""

    model_type = "idefics3"
    model_class = Idefics3ForConditionalGeneration
    processor_class = Idefics3Processor
    tower_type = "idefics3_vision"
    special_tokens = {  # noqa: RUF012
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """With a tower of its own class, of the same size as the one given, and at most two tiles a side."""
        config = Idefics3Config(
            vision_config={name: getattr(parts.tower, name) for name in FIELDS},
            text_config=self.text_config_class(**parts.text),
            image_token_id=parts.tokenizer.image_token_id,
            tie_word_embeddings=True,
        )
        tokens = (parts.size // parts.patch // config.scale_factor) ** 2
        processor = Idefics3Processor(
            Idefics3ImageProcessor(size={"longest_edge": 2 * parts.size}, max_image_size={"longest_edge": parts.size}),
            parts.tokenizer,
            image_seq_len=tokens,
            chat_template=parts.chat_template,
        )
        return Idefics3ForConditionalGeneration(config), processor


IDEFICS3 = Idefics3()
