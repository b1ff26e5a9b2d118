"""InternVL (`InternVLForConditionalGeneration`): DINOv2's tensors under its own tower class, by name."""

from __future__ import annotations

from typing import Any

from transformers import (
    Dinov2Config,
    InternVLForConditionalGeneration,
    InternVLProcessor,
)

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings

WHY = (
    "its tower class is fixed, with the layout of DINOv2 (any other config would be read as its own vision class, and "
    "the tower come back as random weights without a word); pass a DINOv2 tower without registers"
)
ALIKE = "dinov2"
NAMES = {
    "attention.attention.query.": "attention.q_proj.",
    "attention.attention.key.": "attention.k_proj.",
    "attention.attention.value.": "attention.v_proj.",
    "attention.output.dense.": "attention.projection_layer.",
    "layer_scale1.lambda1": "lambda_1",
    "layer_scale2.lambda1": "lambda_2",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "mlp.": "mlp.",
}
"""Within a block: DINOv2's names on disk and the host's."""
BLOCKS = "encoder.layer."


class InternVL(HostFamily):
    """Cuts a large image into tiles and folds two by two patches into one token; reads the last layer, CLS dropped."""

    model_type = "internvl"
    model_class = InternVLForConditionalGeneration
    processor_class = InternVLProcessor
    cls = plain = pyramid = WHY
    entry = ("linear_1.weight", 1)
    own_image_processor = False
    reads_last = True
    announced_extra = (2, 0)
    image_token = "<IMG_CONTEXT>"

    def convert(self, config: dict[str, Any], names: list[str]) -> tuple[dict[str, Any], dict[str, str]] | None:
        """DINOv2's tensors, its final norm included; what it learnt to put in place of masked patches is left behind.

        DINOv2 with gated units has no counterpart.
        """
        if config["model_type"] != ALIKE or any("mlp.weights_in" in name for name in names):
            return None
        full = Dinov2Config(**config)
        fields = {
            "hidden_size": full.hidden_size,
            "intermediate_size": int(full.hidden_size * full.mlp_ratio),
            "num_hidden_layers": full.num_hidden_layers,
            "num_attention_heads": full.num_attention_heads,
            "attention_bias": full.qkv_bias,
            "hidden_act": full.hidden_act,
            "layer_norm_eps": full.layer_norm_eps,
            "image_size": full.image_size,
            "patch_size": full.patch_size,
            "use_mean_pooling": False,  # with it, the final norm would be left out
        }
        return {"model_type": "internvl_vision", **fields}, {
            name: _theirs(name) for name in names if not name.endswith("mask_token")
        }

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The last layer's CLS token is dropped; a tile has the tower's size."""
        tokens = self.image_tokens(config, facts)
        return Settings(
            config={
                "image_seq_length": tokens,
                "vision_feature_layer": -1,
                "vision_feature_select_strategy": "default",
            },
            processor={"image_seq_length": tokens},
            image_processor={"size": {"height": facts.image_size, "width": facts.image_size}},
        )

    def image_tokens(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """Folded.

        Raises:
            ValueError: the grid does not divide.
        """
        ratio, side = config.get("downsample_ratio", self.default("downsample_ratio")), facts.patches**0.5
        if side % (1 / ratio):
            raise ValueError(
                f"encoder: its grid of {side:.0f} x {side:.0f} tokens cannot be folded by {ratio}; use an image size "
                f"that is a multiple of {facts.patch_size / ratio:.0f} px"
            )
        return int(side * ratio) ** 2


def _theirs(name: str) -> str:
    if not name.startswith(BLOCKS):
        return name
    number, _, rest = name.removeprefix(BLOCKS).partition(".")
    start = next(start for start in NAMES if rest.startswith(start))
    return f"{BLOCKS}{number}.{NAMES[start]}{rest.removeprefix(start)}"


INTERNVL = InternVL()
