"""Boxes in the wrong format: corners (x0, y0, x1, y1) where a file promises x, y, width, height.

Read as xywh, a box given by its corners ends outside its image as soon as its centre lies right of or below the
image's; three boxes in four do. Boxes that are xywh hardly ever end there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FEWEST, ENOUGH = 8, 1000
"""Boxes before anything is said, and boxes that are looked at."""
ROUNDING = 1.0
"""Pixels that a box may reach beyond its image."""


class CornerWatch:
    """Looks at the first boxes of a file.

    Args:
        file: for the message.
    """

    def __init__(self, file: Path | str) -> None:
        self.file = file
        self.seen = self.beyond = self.corners = 0

    def see(self, entries: Iterable[Mapping[str, Any]], sizes: Mapping[int, tuple[int, int]]) -> None:
        """Look at annotations with `image_id` and `bbox`; what is no box, or of an unknown image, is passed over.

        Args:
            entries: annotations as they stand in the file.
            sizes: (width, height) of the images in pixels.

        Raises:
            ValueError: enough was seen to `refuse`.
        """
        for entry in entries:
            if self.seen == ENOUGH:
                self.refuse()
                return
            box, size = entry.get("bbox"), sizes.get(entry.get("image_id"))
            if size is None or not _is_box(box):
                continue
            x, y, right, below = box
            width, height = (side + ROUNDING for side in size)
            self.seen += 1
            self.beyond += x + right > width or y + below > height
            self.corners += x < right <= width and y < below <= height

    def refuse(self) -> None:
        """Say so where most boxes end outside their image as xywh and every one makes sense as corners.

        Raises:
            ValueError: that is how it is.
        """
        if self.seen >= FEWEST and self.beyond * 2 > self.seen and self.corners == self.seen:
            raise ValueError(
                f"{self.file}: expected bbox as x, y, width, height, but {self.beyond:,} of the first {self.seen:,} "
                "boxes end outside their image and all of them fit as corners (xyxy); write them as x0, y0, x1 - x0, "
                "y1 - y0"
            )


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)
