"""Image-text pairs: a folder of photos with a `.txt` beside each, or the tars or Parquet that img2dataset writes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloc.formats.sources import Location, find_image_column, list_files, list_tables, read_table_rows
from cloc.formats.tar_index import ShardIndex

_IMAGES = ("jpg", "jpeg", "png", "webp")
_TEXT_COLUMNS = ("caption", "txt", "text")


@dataclass(frozen=True)
class Pair:
    """One photo and its text, both where they lie.

    Attributes:
        name: path inside the folder without the ending; in a tar `TAR/KEY`, in Parquet `FILE/ROW`.
        image: the encoded photo, None where there is a text alone.
        text: the `.txt`, or a table's text itself; None where there is none.
    """

    name: str
    image: Location | None
    text: Location | str | None


def list_pair_files(folder: Path) -> list[Path]:
    """The tars or Parquet files of photos at the top of a folder, or else all photos and texts in it, sorted by name.

    Raises:
        ValueError: there is none of these, or two kinds.
    """
    tars = sorted(folder.glob("*.tar")) or list_tables(folder)
    loose = sorted(path for path in map(folder.joinpath, list_files(folder)) if _find_ending(path) in (*_IMAGES, "txt"))
    if tars and loose:
        raise ValueError(
            f"{folder}: expected either tars or loose photos, got {len(tars)} {tars[0].suffix[1:]}s and loose files "
            f"(first: {loose[0].relative_to(folder)}); put one of them in a folder of its own"
        )
    if not tars and not loose:
        raise ValueError(f"{folder}: expected KEY.jpg (png, webp) with KEY.txt, or tars of them; found none")
    return tars or loose


def hash_listing(folder: Path, files: list[Path]) -> str:
    """A hash of names and sizes: tells whether a folder is still the one that was converted, without reading it all."""
    lines = (f"{path.relative_to(folder).as_posix()}\t{path.stat().st_size}\n" for path in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def read_pairs(folder: Path, files: list[Path], dropped: Counter[str]) -> Iterator[Pair]:
    """The pairs in the order of their names; in tars and Parquet in their own order. Nothing is read yet.

    Args:
        folder: that was given to `list_pair_files`.
        files: what `list_pair_files` found.
        dropped: gets what a tar loses: bad_name (climbs out of the folder), duplicate_member, truncated_shard.

    Raises:
        ValueError: a `.tar` is none, or a table has no texts.
    """
    if files[0].suffix == ".parquet":
        for file in files:
            yield from _read_table(file)
        return
    if files[0].suffix == ".tar":
        for file in files:
            yield from _read_tar(file, dropped)
        return
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        members = groups.setdefault(path.relative_to(folder).with_suffix("").as_posix(), {})
        kind = "text" if _find_ending(path) == "txt" else "image"
        dropped["duplicate_member"] += kind in members
        members.setdefault(kind, path)
    for name, members in groups.items():
        image, text = (Location(str(members[kind])) if kind in members else None for kind in ("image", "text"))
        yield Pair(name, image, text)


def _read_tar(file: Path, dropped: Counter[str]) -> Iterator[Pair]:
    index = ShardIndex.open(file)
    dropped.update(index.dropped)
    for key, members in index.entries:
        found: dict[str, Location] = {}
        for ending in (*_IMAGES, "txt"):
            if ending in members:
                found.setdefault("text" if ending == "txt" else "image", Location(str(file), *members[ending]))
        if found:  # img2dataset leaves a .json alone where a download failed
            yield Pair(f"{file.stem}/{key}", found.get("image"), found.get("text"))
        else:
            dropped["image_missing"] += 1


def _read_table(file: Path) -> Iterator[Pair]:
    """img2dataset writes a failed download as a row without a photo."""
    column = str(find_image_column(file))
    texts = read_table_rows(file, _TEXT_COLUMNS)
    if texts is None:
        raise ValueError(f"{file}: expected a column of texts ({', '.join(_TEXT_COLUMNS)}), found none")
    for row, text in enumerate(texts):
        caption = text if isinstance(text, str) else None
        yield Pair(f"{file.stem}/{row}", Location(str(file), row=row, column=column), caption)


def _find_ending(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
