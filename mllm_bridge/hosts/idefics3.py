"""Idefics3 (`Idefics3ForConditionalGeneration`): SigLIP's tensors under its own tower class, by name."""

from __future__ import annotations

from typing import Any

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.hosts.named import FIELDS, NamedHost


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

    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text: dict[str, Any],
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """With a tower of its own class, of the same size as the one given, and at most two tiles a side."""
        size = tower_config.image_size
        config = Idefics3Config(
            vision_config={name: getattr(tower_config, name) for name in FIELDS},
            text_config=self.text_config_class(**text),
            image_token_id=tokenizer.image_token_id,
            tie_word_embeddings=True,
        )
        tokens = (size // tower_config.patch_size // config.scale_factor) ** 2
        processor = Idefics3Processor(
            Idefics3ImageProcessor(size={"longest_edge": 2 * size}, max_image_size={"longest_edge": size}),
            tokenizer,
            image_seq_len=tokens,
            chat_template=chat_template,
        )
        return Idefics3ForConditionalGeneration(config), processor


IDEFICS3 = Idefics3()
