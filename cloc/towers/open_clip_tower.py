"""A ViT of open_clip as transformers' CLIP tower: other names, one matrix in three, the same features."""

from __future__ import annotations

from collections.abc import Mapping

import open_clip
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

OUTSIDE = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.": "pre_layrnorm.",  # the spelling of the class
    "ln_post.": "post_layernorm.",
}
INSIDE = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "self_attn.out_proj.",
}
BLOCKS, FUSED = "transformer.resblocks.", "attn.in_proj_"
CLOSE = 1e-4
"""Largest difference between open_clip's last tokens and CLIP's, which add in another order."""


def as_clip(visual: nn.Module, asked: str) -> CLIPVisionModel:
    """A ViT of open_clip as transformers' CLIP tower; both are run and have to agree.

    Raises:
        ValueError: it is no such ViT, or the two differ.
    """
    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        raise ValueError(
            f"encoder: {asked}: its tower is a {type(visual).__name__} and not open_clip's own ViT; if timm has it, "
            "pass timm:ARCH:FILE"
        )
    state = dict(_renamed(visual.state_dict()))
    block = visual.transformer.resblocks[0]
    config = CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels,
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=len(visual.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        hidden_act="quick_gelu" if isinstance(block.mlp.gelu, open_clip.transformer.QuickGELU) else "gelu",
        layer_norm_eps=block.ln_1.eps,
    )
    tower = CLIPVisionModel(config).eval()
    lost, left = tower.load_state_dict(state, strict=False)
    left = [key for key in left if key != "proj"]
    lost = [key for key in lost if not key.endswith("position_ids")]
    if lost or left:
        raise ValueError(f"encoder: {asked}: its tower is no plain CLIP ViT (missing {lost[:3]}, left over {left[:3]})")
    pixels = torch.randn(1, 3, *visual.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = visual.forward_intermediates(pixels, output_fmt="NLC")["image_intermediates"]
        ours = tower(pixels, output_hidden_states=True).hidden_states[1:]
    apart = max(float((a - b[:, 1:]).abs().max()) for a, b in zip(theirs, ours, strict=True))
    if apart > CLOSE * max(1.0, float(ours[-1].abs().max())):
        raise ValueError(
            f"encoder: {asked}: as a CLIP tower it gives other features than in open_clip (by {apart:.3g})"
        )
    return tower


def _renamed(state: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """Each weight by transformers' name; the one matrix of query, key and value in three."""
    named = []
    for key, value in state.items():
        block, _, rest = key.removeprefix(BLOCKS).partition(".") if key.startswith(BLOCKS) else ("", "", key)
        front = f"encoder.layers.{block}." if block else ""
        if rest.startswith(FUSED):
            parts = zip("qkv", value.chunk(3), strict=True)
            named += [(f"{front}self_attn.{part}_proj.{rest.removeprefix(FUSED)}", one) for part, one in parts]
            continue
        table = INSIDE if block else OUTSIDE
        start = next((name for name in table if rest.startswith(name)), None)
        named.append((front + (rest if start is None else table[start] + rest.removeprefix(start)), value))
    return named
