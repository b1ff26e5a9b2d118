"""Where other libraries keep the weights of a CLIP: open_clip's and timm's names for what transformers calls otherwise.

One table serves both ways: starting weights come in through it, exports go out through it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

State = dict[str, torch.Tensor]
BLOCKS = "encoder.layers"
"""Where transformers keeps the blocks."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Their names for our (transformers') parameters of one transformer.

    Attributes:
        outer: their name to ours, of what lies outside the blocks.
        blocks: their list of blocks.
        parts: their name to ours, of the modules of a block that have a weight and a bias.
        fused: their prefix of the one matrix that holds query, key and value, before `weight` and `bias`.
        leading: axes of size one that they put in front, by their name.
        transposed: their names of matrices that they keep the other way round.
    """

    outer: Mapping[str, str]
    blocks: str
    parts: Mapping[str, str]
    fused: str
    leading: Mapping[str, int] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()

    def inward(self, theirs: Mapping[str, torch.Tensor]) -> tuple[State, set[str]]:
        """Our state of theirs, and which of their names went into it."""
        ours: State = {}
        for name, mine in self.outer.items():
            if name in theirs:
                value = theirs[name]
                value = value.reshape(value.shape[self.leading.get(name, 0) :])
                ours[mine] = value.T.contiguous() if name in self.transposed else value
        used = {name for name in self.outer if name in theirs}
        pattern = re.compile(rf"{re.escape(self.blocks)}\.(\d+)\.(.+)")
        for name, value in theirs.items():
            found = pattern.fullmatch(name)
            entries = self._block_inward(found[2], value) if found else {}
            ours.update({f"{BLOCKS}.{found[1]}.{mine}": part for mine, part in entries.items()} if found else {})
            if entries:
                used.add(name)
        return ours, used

    def _block_inward(self, name: str, value: torch.Tensor) -> State:
        if name.startswith(self.fused):
            kind = name.removeprefix(self.fused)
            return {f"self_attn.{p}_proj.{kind}": part for p, part in zip("qkv", value.chunk(3), strict=True)}
        module, _, kind = name.rpartition(".")
        return {f"{self.parts[module]}.{kind}": value} if module in self.parts else {}

    def outward(self, ours: Mapping[str, torch.Tensor]) -> State:
        """Their state of ours.

        Raises:
            KeyError: ours lacks a parameter of this layout.
        """
        theirs: State = {}
        for name, mine in self.outer.items():
            value = ours[mine]
            value = value.T.contiguous() if name in self.transposed else value
            theirs[name] = value.reshape(*[1] * self.leading.get(name, 0), *value.shape)
        for i in range(1 + max(int(name.split(".")[2]) for name in ours if name.startswith(BLOCKS))):
            mine, their = f"{BLOCKS}.{i}", f"{self.blocks}.{i}"
            for kind in ("weight", "bias"):
                parts = [ours[f"{mine}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
                theirs[f"{their}.{self.fused}{kind}"] = torch.cat(parts)
                theirs.update({f"{their}.{t}.{kind}": ours[f"{mine}.{m}.{kind}"] for t, m in self.parts.items()})
        return theirs


def _pair(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}


_OPEN_CLIP_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}

OPEN_CLIP_VISION = Layout(
    outer={
        "visual.conv1.weight": "embeddings.patch_embedding.weight",
        "visual.class_embedding": "embeddings.class_embedding",
        "visual.positional_embedding": "embeddings.position_embedding.weight",
        **_pair("visual.ln_pre", "pre_layrnorm"),
        **_pair("visual.ln_post", "post_layernorm"),
        "visual.proj": "visual_projection.weight",
    },
    blocks="visual.transformer.resblocks",
    parts=_OPEN_CLIP_PARTS,
    fused="attn.in_proj_",
    transposed=frozenset({"visual.proj"}),
)
"""open_clip's own ViT (not its timm towers), with its projection."""

OPEN_CLIP_TEXT = Layout(
    outer={
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        **_pair("ln_final", "final_layer_norm"),
        "text_projection": "text_projection.weight",
    },
    blocks="transformer.resblocks",
    parts=_OPEN_CLIP_PARTS,
    fused="attn.in_proj_",
    transposed=frozenset({"text_projection"}),
)
"""open_clip's own text transformer, with its projection."""

_TIMM_PARTS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}

TIMM_CLIP = Layout(
    outer={
        "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding.weight",
        **_pair("norm_pre", "pre_layrnorm"),
        **_pair("norm", "post_layernorm"),
    },
    blocks="blocks",
    parts=_TIMM_PARTS,
    fused="attn.qkv.",
    leading={"cls_token": 2, "pos_embed": 1},
)
"""timm's ViT with a norm before the blocks and a CLS token (`vit_*_clip_*`)."""

TIMM_SIGLIP = Layout(
    outer={
        **_pair("patch_embed.proj", "embeddings.patch_embedding"),
        "pos_embed": "embeddings.position_embedding.weight",
        **_pair("norm", "post_layernorm"),
        "attn_pool.latent": "head.probe",
        **_pair("attn_pool.proj", "head.attention.out_proj"),
        **_pair("attn_pool.norm", "head.layernorm"),
        **_pair("attn_pool.mlp.fc1", "head.mlp.fc1"),
        **_pair("attn_pool.mlp.fc2", "head.mlp.fc2"),
    },
    blocks="blocks",
    parts=_TIMM_PARTS,
    fused="attn.qkv.",
    leading={"pos_embed": 1},
)
"""timm's `vit_*_siglip_*`, all but query, key and value of its pool: see `split_siglip_pool`."""


def split_siglip_pool(ours: Mapping[str, torch.Tensor]) -> State:
    """The names in timm for query, key and value of a SigLIP's pool, which transformers keeps in one matrix."""
    theirs: State = {}
    for kind in ("weight", "bias"):
        query, key, value = ours[f"head.attention.in_proj_{kind}"].chunk(3)
        theirs[f"attn_pool.q.{kind}"], theirs[f"attn_pool.kv.{kind}"] = query, torch.cat([key, value])
    return theirs


_OUTER = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.norm": "patch_embed.norm",
    "layernorm": "norm",
}
_PARTS = {
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_TABLE = "attention.relative_position_bias.relative_position_bias_table"
_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.(.+)")
_MERGE = re.compile(r"encoder\.layers\.(\d+)\.downsample\.(.+)")


def convert_swin(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a transformers Swin without learned positions, by timm's names.

    timm merges patches at the start of a stage, transformers at the end of the one before; timm has query, key and
    value in one matrix.

    Raises:
        ValueError: a parameter has no counterpart.
    """
    theirs: dict[str, torch.Tensor] = {}
    for name, value in ours.items():
        module, _, kind = name.rpartition(".")
        if module in _OUTER:
            theirs[f"{_OUTER[module]}.{kind}"] = value
        elif found := _MERGE.fullmatch(name):
            theirs[f"layers.{int(found[1]) + 1}.downsample.{found[2]}"] = value
        elif found := _BLOCK.fullmatch(name):
            theirs.update(_block(f"layers.{found[1]}.blocks.{found[2]}", name, found[3], ours))
        else:
            raise ValueError(f"--format timm: its Swin has no counterpart of {name}; use --format transformers")
    return theirs


def _block(block: str, name: str, part: str, ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if part == _TABLE:
        return {f"{block}.attn.relative_position_bias_table": ours[name]}
    module, _, kind = part.rpartition(".")
    if module in _PARTS:
        return {f"{block}.{_PARTS[module]}.{kind}": ours[name]}
    if module == "attention.q_proj":
        parts = [ours[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
        return {f"{block}.attn.qkv.{kind}": torch.cat(parts)}
    if module in ("attention.k_proj", "attention.v_proj"):
        return {}
    raise ValueError(f"--format timm: its Swin has no counterpart of {name}; use --format transformers")
