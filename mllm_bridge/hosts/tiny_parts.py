"""What a tiny host is put together from: the same five parts for every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig
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
