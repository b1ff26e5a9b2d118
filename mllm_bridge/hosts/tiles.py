"""What the hosts share that cut a large image into a grid of tiles and cut the padding off the features again."""

from __future__ import annotations

from abc import abstractmethod
from types import SimpleNamespace
from typing import Any

import torch

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings
from mllm_bridge.hosts.strategies import strategy


def tiny_grids(size: int) -> list[list[int]]:
    """The (height, width) grids, in pixels, of a tiny host with tiles of `size` pixels: two tiles or four."""
    return [[size, 2 * size], [2 * size, size], [2 * size, 2 * size]]


class TileHost(HostFamily):
    """Grid pinpoints in config and processor are multiples of the tower's size; how many tokens an image gets depends
    on its shape, and the host's own packing says it.
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
                "vision_feature_select_strategy": strategy(facts),
            },
            processor={"vision_feature_select_strategy": strategy(facts)},
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
