"""How hosts of several families count the tokens of an image: by a strategy, by folding patches, by tiles of a grid."""

from __future__ import annotations

from abc import abstractmethod
from types import SimpleNamespace
from typing import Any

import torch

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings


def choose_strategy(facts: TowerFacts) -> str:
    """`default` where there is a CLS token to drop."""
    return "default" if facts.extra_tokens else "full"


class StrategyHost(HostFamily):
    """Config and processor both name the strategy, and the processor counts by patch size and extra tokens."""

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor counts patches plus extra tokens, less one for the strategy `default`; the config agrees."""
        side = {"height": facts.image_size, "width": facts.image_size}
        return Settings(
            config={
                "image_seq_length": self.image_tokens(config, facts),
                "vision_feature_layer": layer,
                "vision_feature_select_strategy": choose_strategy(facts),
            },
            processor={
                "patch_size": facts.patch_size,
                "num_additional_image_tokens": facts.extra_tokens,
                "vision_feature_select_strategy": choose_strategy(facts),
            },
            # The processor counts by crop_size when it sees no image, so it is set even where nothing is cropped.
            image_processor={"crop_size": side},
        )


class ShuffleHost(HostFamily):
    """`downsample_factor` patches a side become one token; large images are cut into tiles by the host's own rules."""

    own_image_processor = False
    announced_extra = (2, 1)

    def tokens_a_side(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """Tokens a side of one tile.

        Raises:
            ValueError: the grid does not divide by the factor.
        """
        factor = config.get("downsample_factor", self.default("downsample_factor"))
        side = facts.image_size // facts.patch_size
        if side % factor:
            raise ValueError(
                f"encoder: its grid of {side} x {side} tokens does not divide by {factor}, and hosts of the family "
                f"{self.model_type!r} fold {factor} x {factor} tokens into one; use an image size that is a multiple "
                f"of {factor * facts.patch_size} px"
            )
        return side // factor

    def image_tokens(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """Folded."""
        return self.tokens_a_side(config, facts) ** 2


class TileHost(HostFamily):
    """Cuts a large image into a grid of tiles, and the padding off the features again.

    Grid pinpoints in config and processor are multiples of the tower's size; how many tokens an image gets depends on
    its shape, and the host's own packing says it.
    """

    own_image_processor = False
    feature_inputs = ("pixel_values", "image_sizes", "batch_num_images")

    def pinpoints(self, config: dict[str, Any], facts: TowerFacts) -> list[list[int]]:
        """The host's (height, width) grids, in pixels, for tiles of the new size."""
        old = config["vision_config"]["image_size"]
        found = config.get("image_grid_pinpoints") or self.default("image_grid_pinpoints")
        return [[height // old * facts.image_size, width // old * facts.image_size] for height, width in found]

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """Pinpoints, strategy and layer; a description adds what its processor counts with."""
        grids = self.pinpoints(config, facts)
        return Settings(
            config={
                "image_grid_pinpoints": grids,
                "vision_feature_layer": layer,
                "vision_feature_select_strategy": choose_strategy(facts),
            },
            processor={"vision_feature_select_strategy": choose_strategy(facts)},
            image_processor={"image_grid_pinpoints": grids},
        )

    def tiles(self, inputs: Any, facts: TowerFacts) -> int:
        """The overview and the tiles of the grid."""
        return inputs["pixel_values"].shape[1]

    def expected_tokens(self, config: dict[str, Any], facts: TowerFacts, inputs: Any, height: int, width: int) -> int:
        """By the host's own packing, on features of width 1 that are all zero.

        Raises:
            ValueError: the tiles that the processor cut are no grid of the config's.
        """
        host = SimpleNamespace(config=self.model_class.config_class(**config))
        features = torch.zeros(self.tiles(inputs, facts), facts.patches, 1)
        pack = self.packing()
        try:
            packed, _ = pack(host, [features], torch.tensor([[height, width]]), image_newline=torch.zeros(1))
        except RuntimeError as error:
            raise ValueError(
                f"{len(features)} tiles cannot be packed as the config's pinpoints say: {error}"
            ) from error
        return len(packed[0])

    @abstractmethod
    def packing(self) -> Any:
        """The function of the host's model that joins the features of an image's tiles."""
