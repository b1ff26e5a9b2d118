"""A user's images in any form, and boxes, points and masks in their pixels onto the model's canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers.image_transforms import to_pil_image
from transformers.image_utils import make_flat_list_of_images

from cloc.boxes import FloatArray, as_boxes, lie_on_image
from cloc.images import Placement
from cloc.masks import as_mask, place_mask

Size = tuple[int, int]


def as_images(images: object) -> list[Image.Image]:
    """One image or several in Pillow's form.

    Args:
        images: of Pillow, or arrays or tensors (H, W, 3) or (3, H, W), of integers in [0, 255] or floats in [0, 1]; a
            list of them, or one array with a dimension more.

    Raises:
        ValueError: something else.
    """
    found = []
    try:
        for image in make_flat_list_of_images(images):
            if isinstance(image, torch.Tensor):
                image = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
            if isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
                image = np.rint(image * 255).astype(np.uint8)
            found.append(to_pil_image(image, do_rescale=False if getattr(image, "dtype", None) == np.uint8 else None))
    except ValueError as error:
        raise ValueError(
            "images: expected images of Pillow, or arrays or tensors (H, W, 3) or (3, H, W) of integers in [0, 255] or "
            f"floats in [0, 1], got {_describe(images)} ({error})"
        ) from error
    return found


def _describe(images: object) -> str:
    one = images[0] if isinstance(images, (list, tuple)) and images else images
    shape = getattr(one, "shape", None)
    return type(one).__name__ if shape is None else f"{type(one).__name__} of shape {tuple(shape)} and {one.dtype}"


def place_prompts(name: str, prompts: object, sizes: Sequence[Size], canvas: int) -> dict[str, torch.Tensor]:
    """One kind of prompts for a batch of images, padded to the longest list.

    Args:
        name: `boxes`, `points` or `masks`.
        prompts: for each image (M, 4) xyxy, (M, 2) x, y, or M masks of its own size; M may differ and may be 0. Of one
            image also its prompts alone.
        sizes: (width, height) in pixels of each image.
        canvas: S, side in pixels of the model's canvas.

    Returns:
        `name`: (B, M, 4) or (B, M, 2) in [0, 1] of the canvas, or (B, M, S, S) coverage; `name`_mask: (B, M) bool.

    Raises:
        ValueError: see `ClocProcessor`.
    """
    prompts = prompts.detach().cpu().numpy() if isinstance(prompts, torch.Tensor) else prompts
    if len(sizes) == 1 and _count_nesting(prompts) == (3 if name == "masks" else 2):
        prompts = [prompts]
    if len(prompts) != len(sizes):
        raise ValueError(f"{name}: expected one list for each image, got {len(prompts)} lists and {len(sizes)} images")
    empty = {"boxes": (4,), "points": (2,), "masks": (canvas, canvas)}[name]
    rows = [_to_numpy(own) for own in prompts]
    if name == "boxes":
        boxes = [as_boxes(own) for own in rows]
        _check_boxes(boxes, sizes)
        placed = [Placement(*size).to_canvas(own) for own, size in zip(boxes, sizes, strict=True)]
    elif name == "points":
        placed = [_place_points(own, size, image) for image, (own, size) in enumerate(zip(rows, sizes, strict=True))]
    else:
        placed = [
            _place_masks(own, size, image, canvas) for image, (own, size) in enumerate(zip(rows, sizes, strict=True))
        ]
    padded = torch.zeros(len(placed), max((len(p) for p in placed), default=0), *empty)
    real = torch.zeros(padded.shape[:2], dtype=torch.bool)
    for row, found in enumerate(placed):
        padded[row, : len(found)] = torch.from_numpy(found)
        real[row, : len(found)] = True
    return {name: padded, f"{name}_mask": real}


def _count_nesting(prompts: object) -> int:
    """How many lists are nested, or dimensions an array has; -1 where an empty list leaves that open."""
    depth = 0
    while isinstance(prompts, (list, tuple)):
        filled = [one for one in prompts if not (isinstance(one, (list, tuple)) and not one)]
        if not filled:
            return -1
        prompts, depth = filled[0], depth + 1
    return depth + getattr(prompts, "ndim", 0)


def _to_numpy(prompts: object) -> object:
    if isinstance(prompts, (list, tuple)):
        return [_to_numpy(one) for one in prompts]
    return prompts.detach().cpu().numpy() if isinstance(prompts, torch.Tensor) else prompts


def _check_boxes(boxes_xyxy: Sequence[FloatArray], sizes: Sequence[Size]) -> None:
    """Refuse boxes that are not xyxy in pixels of their image; a pixel beyond its border is none too many."""
    largest = max((float(own.max()) for own in boxes_xyxy if len(own)), default=np.inf)
    if largest <= 1 and max(max(size) for size in sizes) > 2:
        raise ValueError(
            f"boxes: expected x0, y0, x1, y1 in pixels of the original image, got values of at most {largest:g}, as if "
            "in [0, 1]; multiply them by the image's width and height"
        )
    for image, (own, (width, height)) in enumerate(zip(boxes_xyxy, sizes, strict=True)):
        for number in np.flatnonzero(~lie_on_image(own, width, height))[:1]:
            box = ", ".join(f"{value:g}" for value in own[number])
            inverted = "" if (own[number, 2:] > own[number, :2]).all() else " or has no area"
            raise ValueError(
                f"boxes: box {number} of image {image}, ({box}), lies outside its image of {width} x {height} pixels"
                f"{inverted}; expected x0, y0, x1, y1 in pixels of the original image, x0 < x1 and y0 < y1"
            )


def _place_points(points: object, size: Size, image: int) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(
            f"points of image {image}: expected shape (M, 2), got {array.shape}; pass one (x, y) for each point"
        )
    for number, (x, y) in enumerate(array):
        if not (0 <= x <= size[0] and 0 <= y <= size[1]):
            raise ValueError(
                f"points: point {number} of image {image}, ({x:g}, {y:g}), lies outside its image of {size[0]} x "
                f"{size[1]} pixels; expected x, y in pixels of the original image"
            )
    return Placement(*size).to_canvas(np.tile(array, 2))[:, :2]


def _place_masks(masks: object, size: Size, image: int, canvas: int) -> np.ndarray:
    placed = np.zeros((len(masks), canvas, canvas), dtype=np.float32)  # type: ignore[arg-type]
    for number, mask in enumerate(masks):  # type: ignore[arg-type, var-annotated]
        try:
            placed[number] = place_mask(as_mask(mask, *size), canvas)
        except ValueError as error:
            raise ValueError(f"masks: mask {number} of image {image}: {error}") from None
    return placed
