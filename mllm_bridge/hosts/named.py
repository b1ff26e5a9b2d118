"""What the hosts share whose tower class is fixed and is SigLIP's: its tensors go in by name, without the head."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import ProcessorMixin, SiglipVisionConfig

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings

WHY = (
    "its tower class is fixed and is SigLIP's (any other config would be read as SigLIP's without a word); pass a "
    "SigLIP tower"
)
FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
)
"""What the host's tower class asks its config for."""
ALIKE = "siglip_vision_model"
HEAD = "head."


class NamedHost(HostFamily):
    """Cuts a large image into tiles and folds `scale_factor` patches a side into one token.

    Attributes:
        tower_type: the model type of the fixed tower class.
    """

    cls = plain = pyramid = WHY
    towers = ("vision_model",)
    projector = "connector"
    entry = ("modality_projection.proj.weight", 1)
    own_image_processor = False
    reads_last = True
    feature_inputs = ("pixel_values", "pixel_attention_mask")
    tower_type: ClassVar[str]

    def convert(self, config: dict[str, Any], names: list[str]) -> tuple[dict[str, Any], dict[str, str]] | None:
        """SigLIP's tensors have the same names there."""
        if config["model_type"] != ALIKE:
            return None
        full = SiglipVisionConfig(**config)
        fields = {name: getattr(full, name) for name in FIELDS}
        return {"model_type": self.tower_type, **fields}, {name: name for name in names if not name.startswith(HEAD)}

    def image_tokens(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """Folded.

        Raises:
            ValueError: the grid does not divide by the factor.
        """
        factor, side = config.get("scale_factor", self.default("scale_factor")), facts.image_size // facts.patch_size
        if side % factor:
            raise ValueError(
                f"encoder: its grid of {side} x {side} tokens does not divide by {factor}, and this host folds "
                f"{factor} x {factor} tokens into one; use an image size that is a multiple of "
                f"{factor * facts.patch_size} px"
            )
        return (side // factor) ** 2

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """A tile has the tower's size."""
        return Settings(
            processor={"image_seq_len": self.image_tokens(config, facts)},
            image_processor={"max_image_size": {"longest_edge": facts.image_size}, "do_image_splitting": True},
        )

    def counted(self, processor: ProcessorMixin, height: int, width: int) -> int | None:
        """Nothing to compare: it announces line ends and tags too. The placeholders themselves are counted."""
        return None
