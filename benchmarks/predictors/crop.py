"""The plainest readout of a CLIP-only encoder on regions: each box is cut out and encoded as an image of its own."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
import torch
from PIL import Image

from benchmarks.predictors.contract import Boxes, Embeddings
from benchmarks.predictors.encoder import EncoderReadout, blocks


class CropReadout(EncoderReadout):
    """Crops through the processor (padded to a square, resized to the tower's size); one encoding a box."""

    name = "clip-crop"

    @torch.inference_mode()
    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """See `Predictor.encode_regions`."""
        places = [(image, box) for image, boxes in zip(images, boxes_xyxy, strict=True) for box in boxes]
        parts = [self.encode_images([])]
        for chunk in blocks(places, self.loaded.batch_size):  # so that only so many crops are held at a time
            parts.append(self.encode_images([cut_out(image, box) for image, box in chunk]))
        ends = np.cumsum([len(boxes) for boxes in boxes_xyxy])[:-1]
        return np.split(np.concatenate(parts), ends)


def cut_out(image: Image.Image, box_xyxy: np.ndarray) -> Image.Image:
    """The whole pixels that a box (pixels of the image) touches, at least one, none beyond the border."""
    left, top = min(floor(box_xyxy[0]), image.width - 1), min(floor(box_xyxy[1]), image.height - 1)
    left, top = max(left, 0), max(top, 0)
    right, bottom = max(ceil(box_xyxy[2]), left + 1), max(ceil(box_xyxy[3]), top + 1)
    return image.crop((left, top, min(right, image.width), min(bottom, image.height)))
