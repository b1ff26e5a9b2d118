"""SmolVLM (`SmolVLMForConditionalGeneration`): as Idefics3, with videos; its processor needs the package num2words."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from mllm_bridge.hosts.named import FIELDS, NamedHost
from mllm_bridge.hosts.tiny_parts import TinyParts


class SmolVLM(NamedHost):
    """Takes SigLIP towers."""

    model_type = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    processor_class = SmolVLMProcessor
    tower_type = "smolvlm_vision"
    needs = "num2words"
    special_tokens = {  # noqa: RUF012
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
        "video_token": "<video>",
    }

    def video_fields(self, side: dict[str, int]) -> dict[str, Any]:
        """Frames have the size of a tile."""
        return {"max_image_size": {"longest_edge": side["height"]}}

    def build_tiny(self, parts: TinyParts) -> tuple[PreTrainedModel, ProcessorMixin]:
        """With a tower of its own class, of the same size as the one given, and at most two tiles a side."""
        config = SmolVLMConfig(
            vision_config={name: getattr(parts.tower, name) for name in FIELDS},
            text_config=self.text_config_class(**parts.text),
            image_token_id=parts.tokenizer.image_token_id,
            tie_word_embeddings=True,
        )
        edges = {"size": {"longest_edge": 2 * parts.size}, "max_image_size": {"longest_edge": parts.size}}
        processor = SmolVLMProcessor(
            SmolVLMImageProcessor(**edges),
            parts.tokenizer,
            SmolVLMVideoProcessor(**edges),
            image_seq_len=(parts.size // parts.patch // config.scale_factor) ** 2,
            chat_template=parts.chat_template,
        )
        return SmolVLMForConditionalGeneration(config), processor


SMOLVLM = SmolVLM()
