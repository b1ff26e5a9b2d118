"""`ClocDetectionImageProcessor`: images onto the detection canvas, and the detector's boxes back to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import BatchFeature, LlavaImageProcessor
from transformers.image_utils import ImageInput
from transformers.processing_utils import ImagesKwargs

from cloc.images import DetectionPlacement, place_top_left, to_pixel_values, to_rgb
from cloc.models.detector.postprocess import select_detections
from cloc.models.prompt_inputs import as_images
from cloc.structures import DetectionOutputs


class DetectionKwargs(ImagesKwargs, total=False):
    """What the detection canvas adds to an image processor's settings."""

    detection_size: dict[str, int]
    detection_divisor: int


class ClocDetectionImageProcessor(LlavaImageProcessor):
    """A call puts images onto the detection canvas, as transformers' detection pipelines want it; `preprocess` is still
    the square canvas of the encoder, which `ClocProcessor` uses for images and regions.

    Settings beside those of the square canvas: `detection_size` ({"shortest_edge", "longest_edge"}, pixels: the image
    is made as large as both allow) and `detection_divisor` (the canvas' sides are multiples of it).
    """

    valid_kwargs = DetectionKwargs
    detection_size = {"shortest_edge": 800, "longest_edge": 1333}  # noqa: RUF012
    detection_divisor = 32

    def placement(self, width: int, height: int) -> DetectionPlacement:
        """Where an image of width x height pixels lies on its canvas."""
        return DetectionPlacement(
            width, height, self.detection_size["shortest_edge"], self.detection_size["longest_edge"]
        )

    def __call__(self, images: ImageInput, return_tensors: str = "pt", **others: object) -> BatchFeature:
        """Resize, place at the top left, pad to the largest of the batch, normalise.

        Args:
            images: one image or several, of any size, in any form that `ClocProcessor` takes.
            return_tensors: `pt`.
            **others: refused; the settings are the model's and not the caller's.

        Returns:
            `pixel_values` (B, 3, H, W), H and W multiples of `detection_divisor`.
        """
        if others or return_tensors != "pt":
            raise ValueError(
                f"detection images: expected return_tensors='pt' and no more, got {others or return_tensors}"
            )
        pictures = as_images(images)
        if not pictures:
            raise ValueError("detection images: expected at least one image, got none")
        width, height = self.find_canvas([picture.size for picture in pictures])
        values = torch.zeros(len(pictures), 3, height, width)  # the padding is the mean colour, as in training
        for row, image in enumerate(pictures):
            across, down = self.placement(*image.size).scaled
            resized = place_top_left(to_rgb(image), (across, down), (across, down))
            normalised = to_pixel_values(resized, tuple(self.image_mean), tuple(self.image_std))
            values[row, :, :down, :across] = torch.from_numpy(normalised)
        return BatchFeature({"pixel_values": values})

    def find_canvas(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Width and height in pixels of the canvas of a batch of images, of whose width and height in pixels."""
        scaled = [self.placement(*size).scaled for size in sizes]
        divisor = self.detection_divisor
        width, height = (-(-max(sides) // divisor) * divisor for sides in zip(*scaled, strict=True))
        return width, height

    def extent(self, canvas: Sequence[int], width: int, height: int) -> tuple[float, float]:
        """Width and height of an image of width x height pixels as shares of its canvas (width and height, pixels)."""
        across, down = self.placement(width, height).scaled
        return across / int(canvas[0]), down / int(canvas[1])

    def to_pixels(
        self, boxes_xyxy: torch.Tensor, canvas: Sequence[int], width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of the model back to the original image.

        Args:
            boxes_xyxy: (n, 4) in [0, 1] of the canvas.
            canvas: its width and height in pixels.
            width: of the original image.
            height: of the original image.

        Returns:
            (m, 4) float64 xyxy pixels, cut at the border, of the boxes that lie on the image; and (n,) bool, which they
            are: a box on the padding alone is none.
        """
        rows = boxes_xyxy.detach().double().cpu().numpy()
        pixels = self.placement(width, height).to_pixels(rows, (int(canvas[0]), int(canvas[1])))
        real = (pixels[:, 2:] > pixels[:, :2]).all(axis=1)
        return pixels[real], real

    def post_process_object_detection(
        self,
        outputs: DetectionOutputs,
        threshold: float = 0.05,
        target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
        limit: int = 300,
        nms: float = 0.6,
        per_level: int = 1000,
    ) -> list[dict[str, torch.Tensor]]:
        """The model's answers as detections.

        Args:
            outputs: with logits, of images that a call of this processor prepared.
            threshold: least score, sqrt(sigmoid(logit) * sigmoid(centerness)).
            target_sizes: (height, width) in pixels of each original image.
            limit: detections an image; 0 for no limit.
            nms: overlap above which the weaker of two detections of one concept is left out.
            per_level: (box, concept) pairs of each level that reach the suppression.

        Returns:
            For each image `scores` (n,) in falling order, `labels` (n,) and `boxes` (n, 4) xyxy in pixels of the
            original image, cut at its border (what lies on the padding alone is left out); in [0, 1] of the canvas
            where no sizes were given.

        Raises:
            ValueError: outputs without logits, another number of sizes than images, or images on another canvas.
        """
        logits, boxes = outputs.logits, outputs.pred_boxes
        if logits is None:
            raise ValueError("post-processing: expected outputs with logits; call the model with with_logits=True")
        if target_sizes is not None and len(target_sizes) != len(boxes):
            raise ValueError(
                f"target_sizes: expected one (height, width) for each of {len(boxes)} images, got {len(target_sizes)}"
            )
        results, canvas = [], outputs.canvas.tolist()
        sizes = None if target_sizes is None else [(int(width), int(height)) for height, width in target_sizes]
        if sizes and self.find_canvas(sizes) != tuple(canvas):
            expected = "{} x {}".format(*self.find_canvas(sizes))
            raise ValueError(
                f"target_sizes: images of these sizes lie on a canvas of {expected} pixels, the outputs are of one of "
                f'{canvas[0]} x {canvas[1]}; prepare images with the processor\'s canvas="detection"'
            )
        for row in range(len(boxes)):
            size = None if sizes is None else sizes[row]
            found, scores, labels = select_detections(
                logits[row].__getitem__,
                logits.shape[-1],
                boxes[row],
                outputs.centerness[row],
                outputs.level_sizes.tolist(),
                limit=limit,
                threshold=threshold,
                iou_threshold=nms,
                per_level=per_level,
                extent=(1.0, 1.0) if size is None else self.extent(canvas, *size),
            )
            if size is not None:
                pixels, real = self.to_pixels(found, canvas, *size)
                real = torch.from_numpy(real).to(scores.device)
                found, scores, labels = torch.from_numpy(pixels).float(), scores[real], labels[real]
            results.append({"scores": scores, "labels": labels, "boxes": found.to(scores.device)})
        return results


def make_detection_image_processor(
    square: LlavaImageProcessor, short_side: int, long_side: int, divisor: int
) -> ClocDetectionImageProcessor:
    """The square processor with a detection canvas beside it.

    Args:
        square: the encoder's image processor.
        short_side: of a detection image in pixels, see `DetectionPlacement`.
        long_side: the same.
        divisor: the canvas' sides are multiples of it, `ClocForObjectDetection.canvas_divisor`.
    """
    settings = {key: value for key, value in square.to_dict().items() if key != "image_processor_type"}
    return ClocDetectionImageProcessor(
        **settings,
        detection_size={"shortest_edge": short_side, "longest_edge": long_side},
        detection_divisor=divisor,
    )
