"""From a detector's proposals to regions: each box takes its most confident phrase, weak and doubled boxes go.

Letters: K boxes of one image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torchvision.ops import nms

from cloc.boxes import clip_to_image
from cloc.structures import Region


@dataclass(frozen=True, eq=False, slots=True)
class Proposals:
    """What a detector found on one image.

    Attributes:
        boxes_xyxy: (K, 4) pixels of the original image.
        scores: (K,) in [0, 1].
        phrases: (K,) which of the image's phrases, from 0; the most confident one of the box.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    phrases: np.ndarray


class Proposer(Protocol):
    """An open-vocabulary detector behind one method. Whoever brings another detector writes one of these."""

    def propose(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Proposals]:
        """Find each image's own phrases on it, all phrases of an image in one pass.

        Args:
            images: RGB, any size.
            phrases: for each image at least one phrase.

        Returns:
            One `Proposals` an image.
        """


def to_regions(
    found: Proposals, phrases: Sequence[str], size: tuple[int, int], score: float, overlap: float = 0.0, limit: int = 0
) -> tuple[tuple[Region, ...], Counter[str]]:
    """The regions of one image, the most confident first.

    Args:
        found: proposals of the image.
        phrases: the texts that `found.phrases` counts.
        size: width and height of the image in pixels.
        score: kept are boxes with a confidence above it.
        overlap: IoU above which the weaker of two boxes goes, whatever their phrases; 0 for no such rule.
        limit: boxes at most; 0 for no limit.

    Returns:
        The regions, and how many boxes above the score were left out, by reason: box_outside, doubled_box (the same
        box with another phrase), overlapping_box, box_above_limit.
    """
    dropped = Counter[str]()
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] > score]
    boxes_xyxy = np.round(clip_to_image(found.boxes_xyxy[order], *size), 2)
    inside = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)  # False for what is no number, too
    dropped["box_outside"] = int((~inside).sum())
    order, boxes_xyxy = order[inside], boxes_xyxy[inside]
    _, first = np.unique(boxes_xyxy, axis=0, return_index=True)
    kept = np.sort(first)
    dropped["doubled_box"] = len(order) - len(kept)
    if overlap > 0 and len(kept):
        values = torch.from_numpy(boxes_xyxy[kept]), torch.from_numpy(-np.arange(len(kept), dtype=np.float64))
        chosen = np.sort(nms(*values, overlap).numpy())
        dropped["overlapping_box"] = len(kept) - len(chosen)
        kept = kept[chosen]
    if limit and len(kept) > limit:
        dropped["box_above_limit"] = len(kept) - limit
        kept = kept[:limit]
    regions = tuple(
        Region(
            tuple(boxes_xyxy[k].tolist()),
            phrases[int(found.phrases[order[k]])],
            round(float(found.scores[order[k]]), 6),
        )
        for k in kept
    )
    return regions, +dropped
