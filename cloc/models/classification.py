"""CLIP's own question: how well does each text fit each image? In the words and shapes of transformers' CLIP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from cloc.models.modeling import ClocModel


@dataclass
class ClocImageTextOutput(ModelOutput):
    """As transformers' `CLIPOutput`.

    Attributes:
        logits_per_image: (B, T), `logit_scale * image_embeds . text_embeds`, plus the bias that the sigmoid form of the
            loss trains.
        logits_per_text: (T, B), the same transposed.
        text_embeds: (T, E), unit norm.
        image_embeds: (B, E), unit norm.
    """

    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None


class ClocForZeroShotImageClassification(ClocModel):
    """The same weights as `ClocModel`, called as code calls a CLIP: `model(**inputs).logits_per_image`."""

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> ClocImageTextOutput:
        """Compare every image with every text.

        Args:
            input_ids: (T, L) tokens of the texts.
            pixel_values: (B, 3, H, W) normalised images.
            attention_mask: (T, L), 1 where a token is real.
        """
        image, text = self.get_image_features(pixel_values), self.get_text_features(input_ids, attention_mask)
        logits = self.scales()[0] * image @ text.T
        bias = self.biases()[0]
        logits = logits if bias is None else logits + bias
        return ClocImageTextOutput(logits, logits.T, text, image)
