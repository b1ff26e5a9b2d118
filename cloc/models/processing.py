"""`ClocProcessor`: images, boxes and texts in, tensors out; and boxes back to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, LlavaImageProcessor, ProcessorMixin
from transformers.image_utils import ImageInput

from cloc.boxes import as_boxes
from cloc.images import CLIP_MEAN, CLIP_STD, Placement, place, to_rgb
from cloc.models.deprecated import rename_argument
from cloc.models.detection_processing import ClocDetectionImageProcessor
from cloc.models.prompt_inputs import as_images, place_prompts
from cloc.structures import DetectionOutputs
from cloc.tokenizer import tokenise


def image_processor(image_size: int) -> LlavaImageProcessor:
    """The stock processor that does what training does: pad to a square with the mean colour, resize, normalise.

    The crop at the end takes nothing from a padded square. It is there for code that reads the same file as a
    `CLIPImageProcessor`, which knows no padding: without it a photo of 640 x 426 would come out as no square, and the
    tower fail. (Such code sees the middle of a photo; LLaVA's own code pads by itself with `image_aspect_ratio: pad`.)
    """
    return LlavaImageProcessor(
        do_pad=True,
        do_center_crop=True,
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )


class ClocProcessor(ProcessorMixin):
    """Image processor and tokenizer, and the only code where a user's boxes change their frame."""

    def __init__(self, image_processor=None, tokenizer=None) -> None:
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: ImageInput | None = None,
        text: str | Sequence[str] | None = None,
        boxes: Sequence[object] | np.ndarray | torch.Tensor | None = None,
        return_tensors: str = "pt",
        *,
        points: Sequence[object] | np.ndarray | torch.Tensor | None = None,
        masks: Sequence[object] | np.ndarray | torch.Tensor | None = None,
        canvas: Literal["square", "detection"] = "square",
        padding: bool | str = True,
        truncation: bool | str = True,
        max_length: int | None = None,
    ) -> BatchFeature:
        """Prepare images, texts and prompts for `ClocModel`, or images and texts for `ClocForObjectDetection`.

        Args:
            images: one image or several, in the frame that is meant: `boxes` and the others are in its pixels, and no
                EXIF is looked at. Pillow's, of any mode (see `cloc.images`); or arrays or tensors (H, W, 3) or
                (3, H, W), of integers in [0, 255] or floats in [0, 1].
            text: one text or several.
            boxes: for each image (M, 4) xyxy in pixels of the original image; M may differ. Of one image also its own
                (M, 4) alone. They may leave the image by a pixel, which rounding does.
            return_tensors: `pt`.
            points: for each image (M, 2) x, y in pixels of the original image; M may differ. Of one image also its own.
            masks: for each image its masks, each (H, W) bool, or integers of which 0 is outside, of the original
                image's size; their number may differ. Of one image also its own.
            canvas: `square` for `ClocModel`, `detection` for `ClocForObjectDetection` (see `detection_images`).
            padding: of the texts, as transformers' tokenizers take it; True: to the longest.
            truncation: of the texts; True: they are cut at `max_length`.
            max_length: tokens of a text; None: what the text tower reads.

        Returns:
            `pixel_values` (B, 3, S, S), or (B, 3, H, W) on the detection canvas, `input_ids` and `attention_mask`
            (T, L), `boxes` (B, M, 4) xyxy in [0, 1] of the padded canvas and `boxes_mask` (B, M), `points` (B, M, 2)
            and `points_mask`, `masks` (B, M, S, S) coverage of the padded canvas in [0, 1] and `masks_mask`, each where
            its input was given.

        Raises:
            ValueError: prompts without images or on the detection canvas, another number of lists than images, a box or
                point outside its image, a box without area or in [0, 1], a mask of another size or without a pixel, or
                neither images nor text.
        """
        if images is None and text is None:
            raise ValueError("processor: expected images, text or both, got neither")
        if canvas not in ("square", "detection"):
            raise ValueError(f"canvas: expected square or detection, got {canvas!r}")
        data: dict[str, torch.Tensor] = {}
        pictures = None if images is None else as_images(images)
        if pictures is not None and canvas == "detection":
            data.update(self.detection_images()(pictures, return_tensors=return_tensors))
        elif pictures is not None:
            fitted = [self._fit(picture) for picture in pictures]
            data.update(self.image_processor.preprocess(fitted, return_tensors=return_tensors))
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            ids, attention = tokenise(self.tokenizer, texts, max_length, padding, truncation)
            data.update(input_ids=ids, attention_mask=attention)
        for name, prompts in (("boxes", boxes), ("points", points), ("masks", masks)):
            if prompts is None:
                continue
            if pictures is None or canvas == "detection":
                got = "no images" if pictures is None else "the detection canvas, on which the Prompter is not asked"
                raise ValueError(f"{name}: expected one list for each image, got {len(prompts)} lists and {got}")
            sizes = [picture.size for picture in pictures]
            data.update(place_prompts(name, prompts, sizes, data["pixel_values"][0].shape[-1]))
        return BatchFeature(data, tensor_type=return_tensors)

    def _fit(self, image: Image.Image) -> Image.Image:
        """In RGB; a strip on the square canvas already, since padding it at full size takes any amount of memory."""
        image = to_rgb(image)
        if image.width == image.height or Placement(*image.size).pads_first:
            return image
        return place(image, self.image_processor.crop_size["height"], tuple(self.image_processor.image_mean))

    @staticmethod
    @rename_argument("image_sizes", "target_sizes")
    def post_process_boxes(
        boxes: torch.Tensor, target_sizes: Sequence[tuple[int, int]] | torch.Tensor
    ) -> list[np.ndarray]:
        """Boxes of the model back to pixels.

        Args:
            boxes: (B, P, 4) xyxy in [0, 1] of the canvas.
            target_sizes: (height, width) in pixels of each original image.

        Returns:
            For each image (P, 4) xyxy in pixels of the original image, cut at its border.
        """
        if len(boxes) != len(target_sizes):
            raise ValueError(
                f"target_sizes: expected one (height, width) for each of {len(boxes)} images, got {len(target_sizes)}"
            )
        rows = boxes.detach().float().cpu().numpy()
        sizes = [(int(width), int(height)) for height, width in target_sizes]
        return [Placement(*size).to_pixels(as_boxes(row)) for row, size in zip(rows, sizes, strict=True)]

    def detection_images(self) -> ClocDetectionImageProcessor:
        """The image processor of the detection canvas; a call prepares images for `ClocForObjectDetection`.

        Raises:
            ValueError: this export has none.
        """
        if not isinstance(self.image_processor, ClocDetectionImageProcessor):
            raise ValueError(
                "this processor has no detection canvas: its export has no detector; use one trained with "
                "objective=detclip or joint"
            )
        return self.image_processor

    def post_process_grounded_object_detection(
        self,
        outputs: DetectionOutputs,
        threshold: float = 0.05,
        target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
        text_labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        limit: int = 300,
    ) -> list[dict[str, object]]:
        """Detections as `ClocDetectionImageProcessor.post_process_object_detection`, with their concepts' names.

        Args:
            outputs: of the model, on images prepared with `canvas="detection"`.
            threshold: least score in [0, 1].
            target_sizes: (height, width) in pixels of each original image.
            text_labels: the concepts, in the order in which the model got them; or one such list for each image, as
                other detectors of transformers want it.
            limit: detections an image; 0 for no limit.

        Returns:
            For each image `scores`, `labels`, `boxes` (xyxy pixels) and, where names were given, `text_labels`.
        """
        found = self.detection_images().post_process_object_detection(outputs, threshold, target_sizes, limit)
        if text_labels is None:
            return found
        nested = bool(text_labels) and not isinstance(text_labels[0], str)
        lists = list(text_labels) if nested else [text_labels] * len(found)
        wanted, got = [outputs.logits.shape[-1]] * len(found), [len(names) for names in lists]
        if wanted != got:
            raise ValueError(f"text_labels: expected {wanted} names for the images, got {got}")
        return [
            {**one, "text_labels": [names[row] for row in one["labels"].tolist()]}
            for one, names in zip(found, lists, strict=True)
        ]
