"""The CLOC readout: boxes and phrases go to the Prompter, one image encoding for all of them (CLOC section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from benchmarks.predictors.contract import Boxes, Embeddings
from benchmarks.predictors.encoder import EncoderReadout, blocks, by_image


class PrompterReadout(EncoderReadout):
    """Region embeddings from box prompts, boxes from phrase prompts."""

    name = "prompter"

    @property
    def cannot_ground(self) -> str | None:
        """RoI-Align takes no phrase prompts, so such an export has no box head."""
        return None if self.model.vision.box_head is not None else "this export was trained without a box head"

    @torch.inference_mode()
    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """See `Predictor.encode_regions`."""
        found: list[Embeddings] = []
        for batch in self.prepared(images, boxes_xyxy):
            embeds = self.model.get_region_features(batch["pixel_values"], batch["boxes"], batch["boxes_mask"])
            found += by_image(embeds, batch["boxes_mask"])
        return found

    @torch.inference_mode()
    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Boxes]:
        """See `Predictor.ground`."""
        distinct = sorted({phrase for asked in phrases for phrase in asked})
        row = {phrase: index for index, phrase in enumerate(distinct)}
        texts = torch.from_numpy(self.encode_texts(distinct))
        found: list[Boxes] = []
        size = self.loaded.batch_size
        for part, asked in zip(blocks(images, size), blocks(phrases, size), strict=True):
            widest = max(len(some) for some in asked)
            padded = torch.zeros(len(part), widest, texts.shape[1])
            for index, some in enumerate(asked):
                padded[index, : len(some)] = texts[[row[phrase] for phrase in some]]
            pixels = self.processor(images=list(part), return_tensors="pt")["pixel_values"].to(self.device)
            boxes = self.model.ground(pixels, padded.to(self.device))
            placed = self.processor.post_process_boxes(boxes, [(image.height, image.width) for image in part])
            found += [np.asarray(rows[: len(some)]) for rows, some in zip(placed, asked, strict=True)]
        return found
