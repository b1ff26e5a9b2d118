"""Where data is looked for: a data root and the rendered scenes under it, in the official layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "RENDERED.txt"
"""What `cloc.scenes` puts into a folder that it rendered; layouts without a field for it are known by this."""


@dataclass(frozen=True)
class FoundSet:
    """One data set that is there.

    Attributes:
        dataset: its name; `name_of` puts `scenes-` before it when its file says that it is rendered.
        split: official split.
        file: the annotation file it was recognised by.
        load: reads it.
    """

    dataset: str
    split: str
    file: Path
    load: Callable[[], object]

    @property
    def rendered(self) -> bool:
        """Whether a mark in the file's folder, the one above it or the photos of COCO beside it says so."""
        above = self.file.parent.parent
        return any((folder / MARK).is_file() for folder in (self.file.parent, above, above / "coco"))


def list_roots(root: Path) -> tuple[Path, Path]:
    """The data root itself (real data first), then the rendered scenes under it."""
    return root, root / "scenes"


def list_coco_files(where: Sequence[Path], split: str = "val2017") -> list[tuple[Path, Path]]:
    """(annotation file, image folder) of a split of COCO in each root, there or not."""
    return [(root / "coco" / "annotations" / f"instances_{split}.json", root / "coco" / split) for root in where]
