"""Three readouts of a CLIP-only encoder on regions: two from one dense encoding of the image, one from crops.

Dense: every patch token of the last layer is put through the tower's final norm and the visual projection, as CLIP does
with CLS alone; RoI-Align averages the grid inside each box (torchvision, 1 x 1 output, aligned, one sample a cell), and
the mean is brought to unit norm. `clip-roialign` reads the layer's output, `clip-value` the value path of its attention
(MaskCLIP, arXiv 2112.01071): layer norm, value and output projection of the layer's input, no residual, no MLP.
`clip-crop`, the plainest: each box is cut out and encoded as an image of its own.

Letters: B images, N patch tokens, D width, E shared embedding, S side of the patch grid, K boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import roi_align

from benchmarks.predictors.contract import Boxes, Embeddings
from benchmarks.predictors.encoder import EncoderReadout, split_blocks, split_by_image


class RoiAlignReadout(EncoderReadout):
    """RoI-Align on the projected patch tokens of the last layer."""

    name = "clip-roialign"

    def tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, N, D) patch tokens after the final norm."""
        outputs = self.model.vision.tower(pixel_values=pixel_values)
        patches = _patches(outputs.last_hidden_state, self.side)
        return patches if self._tower_norms_all else self.model.vision.tower.post_layernorm(patches)

    @property
    def side(self) -> int:
        """S."""
        config = self.model.vision.tower.config
        return config.image_size // config.patch_size

    @property
    def _tower_norms_all(self) -> bool:
        # CLIP norms CLS only; SigLIP's last_hidden_state comes normed.
        return self.model.vision.tower.config.model_type == "siglip_vision_model"

    @torch.inference_mode()
    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """See `Predictor.encode_regions`."""
        found: list[Embeddings] = []
        for batch in self.prepared(images, boxes_xyxy):
            dense = self.model.vision.visual_projection(self.tokens(batch["pixel_values"]))
            grid = dense.transpose(1, 2).unflatten(2, (self.side, self.side))
            pooled = roi_align(grid, _by_image_rows(batch, self.side), output_size=1, aligned=True).flatten(1)
            embeds = pooled.new_zeros(*batch["boxes_mask"].shape, pooled.shape[1])
            embeds[batch["boxes_mask"]] = F.normalize(pooled, dim=-1)
            found += split_by_image(embeds, batch["boxes_mask"])
        return found


class ValueReadout(RoiAlignReadout):
    """RoI-Align on the projected value path of the last layer."""

    name = "clip-value"

    def tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, N, D) value path of the last layer's attention, after the final norm."""
        tower = self.model.vision.tower
        outputs = tower(pixel_values=pixel_values, output_hidden_states=True)
        layer = tower.encoder.layers[-1]
        entering = _patches(outputs.hidden_states[-2], self.side)
        values = layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(entering)))
        return tower.post_layernorm(values)


def _patches(tokens: torch.Tensor, side: int) -> torch.Tensor:
    """(B, N, D) without the tokens that stand before the patches."""
    return tokens[:, tokens.shape[1] - side * side :]


def _by_image_rows(batch: dict[str, torch.Tensor], side: int) -> torch.Tensor:
    """(R, 5) rows of RoI-Align, boxes in cells of the grid, in the row-major order of the mask."""
    images = batch["boxes_mask"].nonzero()[:, :1].to(batch["boxes"].dtype)
    return torch.cat([images, batch["boxes"][batch["boxes_mask"]] * side], dim=1)


class CropReadout(EncoderReadout):
    """Crops through the processor (padded to a square, resized to the tower's size); one encoding a box."""

    name = "clip-crop"

    @torch.inference_mode()
    def encode_regions(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes]) -> list[Embeddings]:
        """See `Predictor.encode_regions`."""
        places = [(image, box) for image, boxes in zip(images, boxes_xyxy, strict=True) for box in boxes]
        parts = [self.encode_images([])]
        for chunk in split_blocks(places, self.loaded.batch_size):  # so that only so many crops are held at a time
            parts.append(self.encode_images([crop_box(image, box) for image, box in chunk]))
        ends = np.cumsum([len(boxes) for boxes in boxes_xyxy])[:-1]
        return np.split(np.concatenate(parts), ends)


def crop_box(image: Image.Image, box_xyxy: np.ndarray) -> Image.Image:
    """The whole pixels that a box (pixels of the image) touches, at least one, none beyond the border."""
    left, top = min(floor(box_xyxy[0]), image.width - 1), min(floor(box_xyxy[1]), image.height - 1)
    left, top = max(left, 0), max(top, 0)
    right, bottom = max(ceil(box_xyxy[2]), left + 1), max(ceil(box_xyxy[3]), top + 1)
    return image.crop((left, top, min(right, image.width), min(bottom, image.height)))
