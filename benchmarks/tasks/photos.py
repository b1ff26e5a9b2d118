"""Photos of an annotated set, some at a time. A photo that cannot be used is named by its reason, never passed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image
from tqdm import tqdm

from benchmarks.tasks.contract import Options
from cloc.data.formats.annotated import AnnotatedImage
from cloc.images import decode

MISSING = "photo missing"
UNREADABLE = "photo unreadable"
NO_EXAMPLE = "no example in this group"
WRONG_SIZE = "photo of another size than annotated"


def open_photo(image: AnnotatedImage) -> Image.Image | str:
    """The photo in RGB, or the reason why it cannot be used."""
    if not image.path.is_file():
        return MISSING
    try:
        photo = decode(image.path.read_bytes())
    except ValueError:
        return UNREADABLE
    return photo if photo.size == (image.width, image.height) else WRONG_SIZE


def limited(images: Sequence[AnnotatedImage], options: Options) -> list[AnnotatedImage]:
    """All images by ascending id, or the first so many."""
    return sorted(images, key=lambda image: image.image_id)[: options.limit]


def photo_batches(
    images: Sequence[AnnotatedImage], options: Options, title: str, skipped: dict[int, str]
) -> Iterator[tuple[list[AnnotatedImage], list[Image.Image]]]:
    """Photos and what is annotated on them, `options.photos_at_once` at a time.

    Args:
        images: what to open.
        options: batch size and whether a bar is drawn.
        title: of the bar.
        skipped: filled with the reason for each image id that cannot be used.
    """
    with tqdm(total=len(images), desc=title, unit="image", leave=False, disable=not options.progress) as bar:
        for start in range(0, len(images), options.photos_at_once):
            kept, photos = [], []
            for image in images[start : start + options.photos_at_once]:
                photo = open_photo(image)
                if isinstance(photo, str):
                    skipped[image.image_id] = photo
                else:
                    kept.append(image)
                    photos.append(photo)
            if kept:
                yield kept, photos
            bar.update(min(options.photos_at_once, len(images) - start))


def why_none(skipped: dict[int, str], images: Sequence[AnnotatedImage]) -> str:
    """The reason of a row for which no photo could be used."""
    if not images:
        return "the set holds no image"
    if len(skipped) < len(images):
        return NO_EXAMPLE
    return f"none of the {len(images):,} photos can be used ({skipped[images[0].image_id]}: {images[0].path})"
