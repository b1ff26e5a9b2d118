"""Photos that several processes look at together: each decodes only those that it will be asked about.

The tape hands chunk c of a question to process c modulo their number (see `cached_predictor`). So each process
opens the photos of its chunks, all tell each other which could not be opened, and from then on all know which photos
count. A photo that was left out moves later ones to another chunk: such a photo is opened where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

from PIL import Image

from cloc import comm

T = TypeVar("T")


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
        share: items that go to one process at a time, the tape's chunk.

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
