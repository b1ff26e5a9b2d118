"""What the hosts share that fold a square of neighbouring patches into one token before they project it."""

from __future__ import annotations

from typing import Any

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts.family import HostFamily


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
