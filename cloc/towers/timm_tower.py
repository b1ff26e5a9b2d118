"""A timm ViT or Swin as hosts see a tower: token sequences instead of maps, no CLS token, its size in its config.

Letters: B pictures, N tokens, C width, S image size.
"""

from __future__ import annotations

import torch
from transformers import TimmWrapperConfig, TimmWrapperModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

TIMM = "timm_wrapper"


class TimmTokens(TimmWrapperModel):
    """transformers' own class around a timm model, with the outputs that its other towers have.

    `config` gets `image_size`, `patch_size` (of the embedding) and `hidden_size` from the model that timm builds.
    """

    def __init__(self, config: TimmWrapperConfig):
        super().__init__(config)
        embed = getattr(self.timm_model, "patch_embed", None)
        sides = {*(getattr(embed, "img_size", None) or ())}
        if len(sides) != 1 or len({*embed.patch_size}) != 1 or not hasattr(self.timm_model, "forward_intermediates"):
            raise ValueError(
                f"encoder: expected a ViT or Swin of timm with square images and patches, got {config.architecture} "
                f"({type(self.timm_model).__name__})"
            )
        config.image_size, config.patch_size = sides.pop(), embed.patch_size[0]
        config.hidden_size = self.timm_model.num_features

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPooling:
        """Tokens of the patches, row by row.

        Args:
            pixel_values: (B, 3, S, S).
            output_hidden_states: whether they are wanted.
            return_dict: the answer is always by name.

        Returns:
            `last_hidden_state` (B, N, C) after the final norm; `hidden_states` (B, N, C) each: the embedded patches
            before positions, then what each block (of a Swin, each stage) gives before the final norm.
        """
        pixel_values = pixel_values.to(self.device, self.dtype)
        if not output_hidden_states:
            return BaseModelOutputWithPooling(
                last_hidden_state=self._tokens(self.timm_model.forward_features(pixel_values))
            )
        last, maps = self.timm_model.forward_intermediates(pixel_values)
        embedded = self.timm_model.patch_embed(pixel_values)
        embedded = embedded.flatten(1, 2) if embedded.ndim == 4 else embedded
        states = (embedded, *(one.flatten(2).transpose(1, 2) for one in maps))
        return BaseModelOutputWithPooling(last_hidden_state=self._tokens(last), hidden_states=states)

    def _tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Without CLS and registers; a Swin's are channels-last maps."""
        if features.ndim == 4:
            return features.flatten(1, 2)
        return features[:, getattr(self.timm_model, "num_prefix_tokens", 0) :]
