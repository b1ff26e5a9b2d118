"""What the kit asks of a transformers vision tower: patch tokens before the final norm, and one pooled vector.

Letters: B images, N patch tokens, D width.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig, PreTrainedModel

PREFIX_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""The towers that are known, and how many tokens stand before the patches (1 where there is a CLS token)."""


def check_tower(config: PreTrainedConfig) -> None:
    """Refuse a tower of an unknown kind, or one whose image does not divide into patches."""
    if config.model_type not in PREFIX_TOKENS:
        raise ValueError(f"vision tower: expected one of {sorted(PREFIX_TOKENS)}, got {config.model_type!r}")
    if config.image_size % config.patch_size:
        raise ValueError(
            f"vision tower: image_size {config.image_size} is not a multiple of patch_size {config.patch_size}; "
            f"use {config.image_size // config.patch_size * config.patch_size} or another patch_size"
        )


def encode(tower: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the tower once.

    Returns:
        (B, N, D) patch tokens of the last layer, before the tower's final norm and without CLS, and (B, D) its pooled
        vector.
    """
    if tower.config.model_type == "clip_vision_model":
        # CLIP norms CLS only, so its last_hidden_state is not normed yet.
        outputs = tower(pixel_values=pixel_values)
        return outputs.last_hidden_state[:, 1:], outputs.pooler_output
    outputs = tower(pixel_values=pixel_values, output_hidden_states=True)
    return outputs.hidden_states[-1], outputs.pooler_output
