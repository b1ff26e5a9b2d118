"""Photos of an annotated set, some at a time, by one process or several that look at them together.

A photo that cannot be used is named by its reason, never passed over. Of several processes each decodes only the photos
that it will be asked about: `cached_predictor` hands chunk c of a question to process c modulo their number, so each
process opens the photos of its chunks, all tell each other which could not be opened, and from then on all know which
photos count. A photo that was left out moves later ones to another chunk: such a photo is opened where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, overload

from PIL import Image
from tqdm import tqdm

from benchmarks.tasks.contract import Options
from cloc import comm
from cloc.formats.annotated import AnnotatedImage
from cloc.images import ImageError, decode, is_strip


class Pictured(Protocol):
    """An image of a set."""

    @property
    def image_id(self) -> int:
        """Number in the set."""

    @property
    def path(self) -> Path:
        """Of the photo, or of what holds it."""


T = TypeVar("T")
P = TypeVar("P", bound=Pictured)
MISSING = "photo missing"
UNREADABLE = "photo unreadable"
NO_EXAMPLE = "no example in this group"
WRONG_SIZE = "photo of another size than annotated"
SWAPPED_SIDES = "photo with width and height exchanged against its annotation, and no such turn in its EXIF"
STRIP = "photo too long and thin for the models' processors"


def open_photo(image: AnnotatedImage) -> Image.Image | str:
    """The photo in RGB, or the reason why it cannot be used."""
    return open_sized(image.path, (image.width, image.height))


def open_sized(path: Path, size: tuple[int, int] | None) -> Image.Image | str:
    """The photo in RGB, in the frame of its annotation, or the reason why it cannot be used; a size of None is not
    checked, and the photo is as it is stored.
    """
    if not path.is_file():
        return MISSING
    try:
        photo = decode(path.read_bytes(), size)
    except ImageError as error:
        return {"other_size": WRONG_SIZE, "swapped_sides": SWAPPED_SIDES}.get(error.reason, UNREADABLE)
    return STRIP if is_strip(photo.size) else photo


def limit_images(images: Sequence[P], options: Options) -> list[P]:
    """All images by ascending id, or the first so many."""
    return sorted(images, key=lambda image: image.image_id)[: options.limit]


def iterate_photos(
    images: Sequence[AnnotatedImage], options: Options, title: str, skipped: dict[int, str]
) -> Iterator[tuple[list[AnnotatedImage], Sequence[Image.Image]]]:
    """Photos and what is annotated on them, `options.photos_at_once` at a time.

    Args:
        images: what to open.
        options: photos at a time, the share of a process, and whether a bar is drawn.
        title: of the bar.
        skipped: filled with the reason for each image id that cannot be used.
    """
    reasons: dict[int, str] = {}
    for rows, photos in open_batches(images, open_photo, options, title, reasons):
        yield [images[row] for row in rows], photos
    skipped.update({images[row].image_id: reason for row, reason in reasons.items()})


def open_batches(
    items: Sequence[T],
    open_one: Callable[[T], Image.Image | str],
    options: Options,
    title: str,
    skipped: dict[int, str],
) -> Iterator[tuple[list[int], Sequence[Image.Image]]]:
    """Rows of `items` and their images, `options.photos_at_once` at a time; several processes open them together.

    Args:
        items: anything that stands for an image.
        open_one: the image in RGB, or why it cannot be used.
        options: photos at a time, the share of a process, and whether a bar is drawn.
        title: of the bar.
        skipped: filled with the reason for each row that cannot be used.
    """
    hidden = None if options.progress else True  # None: where there is no terminal a bar would leave blank lines
    with tqdm(total=len(items), desc=title, unit="image", leave=False, disable=hidden) as bar:
        for start in range(0, len(items), options.photos_at_once):
            window = range(start, min(start + options.photos_at_once, len(items)))
            rows, photos, reasons = open_together(items, window, open_one, options.share)
            skipped.update(reasons)
            if rows:
                yield rows, photos
            bar.update(len(window))


def explain_none(skipped: Mapping[int, str], images: Sequence[Pictured]) -> str:
    """The reason of a row for which no photo could be used."""
    if not images:
        return "the set holds no image"
    if len(skipped) < len(images):
        return NO_EXAMPLE
    return f"none of the {len(images):,} photos can be used ({skipped[images[0].image_id]}: {images[0].path})"


class SharedPhotos(Sequence[Image.Image]):
    """Photos by place; those that this process does not hold are opened when they are looked at, and then kept.

    Args:
        rows: of the photos, in order.
        held: row to photo, as far as opened here; photos opened later are added.
        open_row: opens another one.
    """

    def __init__(
        self, rows: Sequence[int], held: dict[int, Image.Image], open_row: Callable[[int], Image.Image]
    ) -> None:
        self._rows, self._held, self._open_row = rows, held, open_row

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...
    @overload
    def __getitem__(self, place: slice) -> list[Image.Image]: ...
    def __getitem__(self, place: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(place, slice):
            return [self._photo(row) for row in self._rows[place]]
        return self._photo(self._rows[place])

    def _photo(self, row: int) -> Image.Image:
        if row not in self._held:
            self._held[row] = self._open_row(row)
        return self._held[row]


def open_together(
    items: Sequence[T], rows: range, open_one: Callable[[T], Image.Image | str], share: int
) -> tuple[list[int], Sequence[Image.Image], dict[int, str]]:
    """Open some items; every process calls this with the same arguments.

    Args:
        items: anything that stands for an image.
        rows: of the items wanted.
        open_one: the image in RGB, or why it cannot be used.
        share: items that go to one process at a time: the chunk of a question.

    Returns:
        The rows that could be opened, their photos, and why the others could not; the same in every process.
    """

    def open_row(row: int) -> Image.Image:
        photo = open_one(items[row])
        if isinstance(photo, str):
            raise ValueError(f"image {row}: another process opened it, here it is a {photo}; is the folder the same?")
        return photo

    world, rank = comm.world_size(), comm.rank()
    held, reasons = dict[int, Image.Image](), dict[int, str]()
    for place, row in enumerate(rows):
        if place // share % world == rank:
            photo = open_one(items[row])
            if isinstance(photo, str):
                reasons[row] = photo
            else:
                held[row] = photo
    reasons = {row: reason for part in comm.gather_objects(reasons) for row, reason in part.items()}
    kept = [row for row in rows if row not in reasons]
    return kept, SharedPhotos(kept, held, open_row), reasons
