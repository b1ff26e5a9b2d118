"""Local Arrow and Parquet through `datasets`, read like shards: memory-mapped rows, the image never re-encoded.

Columns: `image` (encoded bytes, or datasets' Image), `caption` or `captions`, `regions` (a list of {box, phrase} or
the same as JSON text), and where they are known `key`, `width`, `height`. Boxes are xyxy pixels, as in a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloc.data.shards import ShardSet
from cloc.files import parse_json
from cloc.images import ImageError, read_header
from cloc.structures import DataError, Sample

ROWS = 1000
"""Rows that are shuffled as one shard."""


def open_samples(path: Path | str, kind: str | None = None) -> ShardSet | TableSet:
    """Open whatever lies there: shards, a folder of `Dataset.save_to_disk`, or Parquet (a file or a folder of them).

    Raises:
        ValueError: there is nothing that can be read.
    """
    source = Path(path)
    parquet = [source] if source.suffix == ".parquet" else sorted(source.glob("*.parquet")) if source.is_dir() else []
    if parquet or (source / "state.json").is_file():
        return TableSet(source, parquet)
    return ShardSet.open(path, kind)


class TableSet:
    """Rows of a table, in virtual shards of `ROWS`; the same verbs as `ShardSet`.

    Attributes:
        shards: the table's path, once for each virtual shard.
        counts: rows in each.
        card: None, a table has no card.
    """

    card = None

    def __init__(self, source: Path, parquet: list[Path]) -> None:
        import datasets
        from datasets.exceptions import DatasetsError

        try:
            if parquet:
                rows = datasets.Dataset.from_parquet([str(file) for file in parquet])
            else:
                rows = datasets.load_from_disk(str(source))
        except (OSError, LookupError, TypeError, ValueError, DatasetsError) as error:
            why = " ".join(str(error.__cause__ or error).split())
            raise ValueError(
                f"{source}: expected a table that `datasets` reads, got {type(error).__name__} ({why}); copy it again"
            ) from error
        if not isinstance(rows, datasets.Dataset):
            raise ValueError(
                f"{source}: expected one split, got {sorted(rows)}; give the folder of one, such as {source}/train"
            )
        if "image" not in rows.column_names:
            raise ValueError(
                f"{source}: expected a column 'image' (encoded bytes, or a struct with bytes), caption or captions, "
                f"and regions (box, phrase), got {', '.join(rows.column_names)}; rename them, or make shards: "
                "img2dataset's Parquet with `python -m cloc.convert pairs`, others as its --help lists"
            )
        if isinstance(rows.features["image"], datasets.Image):
            rows = rows.cast_column("image", datasets.Image(decode=False))
        self._rows = rows
        self.counts = tuple(min(ROWS, len(rows) - first) for first in range(0, len(rows), ROWS))
        self.shards = (source / source.name,) * len(self.counts)

    @property
    def num_samples(self) -> int:
        """Rows in all."""
        return len(self._rows)

    def read_sample(self, shard: int, i: int) -> Sample:
        """Row `i` of virtual shard `shard`, both from 0.

        Raises:
            DataError: the row cannot be used.
        """
        number = shard * ROWS + i
        try:
            row = self._rows[number]
        except (OSError, ValueError) as error:  # pages that were damaged after the header; no UTF-8
            raise DataError("bad_row", f"row {number}: cannot be read ({error})") from error
        image = row["image"].get("bytes") if isinstance(row["image"], Mapping) else row["image"]
        if not isinstance(image, bytes):
            raise DataError(
                "missing_image", f"row {number}: expected encoded bytes in 'image', got {type(image).__name__}"
            )
        image_format, size = _read_header(image, number)
        captions = row.get("captions") or []
        captions = [c for c in ([captions] if isinstance(captions, str) else captions) if c]
        caption = row.get("caption") or (captions[0] if captions else "")
        meta = {"schema": 1, "width": row.get("width") or size[0], "height": row.get("height") or size[1]}
        meta |= {"regions": _read_regions(row.get("regions"), number), **({"captions": captions} if captions else {})}
        return Sample.from_json(str(row.get("key") or f"{number:09d}"), image, image_format, caption, meta)


def _read_header(image: bytes, number: int) -> tuple[str, tuple[int, int]]:
    try:
        return read_header(image)
    except ImageError as error:
        raise DataError("bad_image", f"row {number}: the image's header cannot be read ({error})") from error


def _read_regions(value: Any, number: int) -> list[Any]:
    if isinstance(value, Mapping):  # datasets keeps a list of structs as a struct of lists
        columns = [column if isinstance(column, list) else [] for column in value.values()]
        if len({len(column) for column in columns}) > 1:
            raise DataError("bad_regions", f"row {number}: expected as many boxes as phrases in 'regions'")
        return [dict(zip(value, one, strict=True)) for one in zip(*columns, strict=True)]
    if not isinstance(value, str):
        return [] if value is None else value
    try:
        return parse_json(value, f"row {number}, 'regions'")
    except ValueError as error:
        raise DataError("bad_json", str(error)) from error
