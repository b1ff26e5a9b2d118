"""What a tiny host is put together from: the same five parts for every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor


@dataclass(frozen=True, slots=True)
class TinyParts:
    """The parts of a host with random weights, before its family joins them.

    Attributes:
        tower: config of the tower that it starts with: square images of `image_size` pixels, cut by `patch_size`.
        text: fields of the language model's config.
        tokenizer: has the family's image token and special tokens.
        image_processor: stock, of the tower's size.
        chat_template: for the processor.
    """

    tower: PreTrainedConfig
    text: dict[str, Any]
    tokenizer: Any
    image_processor: BaseImageProcessor
    chat_template: str

    @property
    def size(self) -> int:
        """Pixels a side of the tower's images."""
        return self.tower.image_size

    @property
    def side(self) -> dict[str, int]:
        """The same as image processors write it."""
        return {"height": self.size, "width": self.size}

    @property
    def patch(self) -> int:
        """Pixels a side of a patch."""
        return self.tower.patch_size

    @property
    def patches(self) -> int:
        """Patches of an image, a CLS token not counted."""
        return (self.size // self.patch) ** 2


def make_counting_processor(
    processor_class: type[ProcessorMixin],
    parts: TinyParts,
    image_processor: BaseImageProcessor,
    image_token: str,
    extra_tokens: int,
) -> ProcessorMixin:
    """A tiny host's own processor, where it counts by patch size, extra tokens and strategy."""
    return processor_class(
        image_processor,
        parts.tokenizer,
        patch_size=parts.patch,
        vision_feature_select_strategy="default" if extra_tokens else "full",
        num_additional_image_tokens=extra_tokens,
        chat_template=parts.chat_template,
        image_token=image_token,
    )
