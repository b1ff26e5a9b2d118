"""Vectors on disk. Parts as they come, one file at the end, and a start in between goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cloc.disk import atomic_write, locked
from cloc.files import read_json, read_object

Tables = Iterator[pa.Table]


def vector_schema(width: int, facts: Mapping[str, str], texts: bool = False) -> pa.Schema:
    """Columns of a file of vectors.

    `image` path as given; `kind` image or region; `region` place of the box in the boxes file, its `x0, y0, x1, y1`
    in pixels, and its `annotation_id` and `category` where the file tells them (null for an image); `best_texts` and
    `best_scores`, where texts are asked for; `embedding` E floats of unit norm.

    Args:
        width: E.
        facts: kept in the file's metadata: model, its sha256, the kit's version.
        texts: with the columns of the best texts.
    """
    box = [pa.field(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]
    fields = [pa.field("image", pa.string()), pa.field("kind", pa.string()), pa.field("region", pa.int32()), *box]
    fields += [pa.field("annotation_id", pa.int64()), pa.field("category", pa.string())]
    if texts:
        fields.append(pa.field("best_texts", pa.list_(pa.string())))
        fields.append(pa.field("best_scores", pa.list_(pa.float32())))
    fields.append(pa.field("embedding", pa.list_(pa.float32(), width)))
    return pa.schema(fields, metadata={key.encode(): value.encode() for key, value in facts.items()})


def _write_parquet(path: Path, schema: pa.Schema, tables: Tables) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_csv(path: Path, schema: pa.Schema, tables: Tables) -> None:
    """One column a number: `embedding` becomes e0, e1, ...; the best texts become text_1, score_1, text_2, ..."""
    width = schema.field("embedding").type.list_size
    plain = [name for name in schema.names if name not in ("embedding", "best_texts", "best_scores")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        named = None
        for table in tables:
            rows = table.to_pylist()
            if named is None and rows:  # a part whose images could not be read has none
                named = max(len(row.get("best_texts") or ()) for row in rows)
                writer.writerow([*plain, *_pairs(named), *(f"e{place}" for place in range(width))])
            for row in rows:
                best = zip(row.get("best_texts") or (), row.get("best_scores") or (), strict=True)
                writer.writerow(
                    [*(row[name] for name in plain), *(v for pair in best for v in pair), *row["embedding"]]
                )
        if named is None:
            writer.writerow([*plain, *(f"e{place}" for place in range(width))])


def _pairs(count: int) -> list[str]:
    return [f"{name}_{place}" for place in range(1, count + 1) for name in ("text", "score")]


def _write_jsonl(path: Path, schema: pa.Schema, tables: Tables) -> None:
    """One object a line, with the columns' names; what is null is left out."""
    with path.open("w", encoding="utf-8") as file:
        for table in tables:
            for row in table.to_pylist():
                record = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_npz(path: Path, schema: pa.Schema, tables: Tables) -> None:
    """One array a column, without pickles: `boxes_xyxy` (N, 4) with NaN for images, ids -1 and texts empty for none."""
    table = pa.concat_tables(list(tables))
    arrays: dict[str, Any] = {name: np.array(table[name].to_pylist(), dtype=str) for name in ("image", "kind")}
    for name in ("region", "annotation_id"):
        arrays[name] = np.array([-1 if value is None else value for value in table[name].to_pylist()], dtype=np.int64)
    arrays["category"] = np.array([value or "" for value in table["category"].to_pylist()], dtype=str)
    corners = [table[name].to_numpy(zero_copy_only=False) for name in ("x0", "y0", "x1", "y1")]
    arrays["boxes_xyxy"] = np.stack(corners, axis=1).astype(np.float32)
    if "best_texts" in table.column_names:
        arrays["best_texts"] = np.array(table["best_texts"].to_pylist(), dtype=str)
        arrays["best_scores"] = np.array(table["best_scores"].to_pylist(), dtype=np.float32)
    width = schema.field("embedding").type.list_size
    arrays["embedding"] = np.array(table["embedding"].to_pylist(), dtype=np.float32).reshape(-1, width)
    with path.open("wb") as file:
        np.savez(file, **arrays)


FORMATS: dict[str, Callable[[Path, pa.Schema, Tables], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".npz": _write_npz,
}
"""A file's ending to the function that writes such a file; Parquet alone keeps the model's facts, in its metadata."""


class VectorFile:
    """Writes parts beside the file and joins them when all are there; one process at a time.

    Args:
        out: the file, with an ending of `FORMATS`; it appears when it is whole.
        schema: from `vector_schema`.
        call: everything that decides the content; parts of another call are refused.

    Raises:
        ValueError: another ending, `out` exists, parts of another call lie beside it, or its folder cannot be made.
    """

    def __init__(self, out: Path, schema: pa.Schema, call: Mapping[str, Any]) -> None:
        check_ending(out)
        self.out, self.schema = out, schema
        self.folder = out.with_name(f"{out.name}.parts")
        text = json.dumps(call, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        call_file = self.folder / "call.json"
        if call_file.is_file() and read_json(call_file, "the call of unfinished vectors") != digest:
            raise ValueError(
                f"--out {out}: {self.folder} holds parts of another call (other images, boxes, model or batch size); "
                "delete that folder or give another file"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out {out}: its folder cannot be made ({error}); give another file") from error
        self.lock = locked(self.folder, f"--out {out}: another process is writing it; wait for it, or end it")
        call_file.write_text(json.dumps(digest), encoding="utf-8")

    def has(self, part: int) -> bool:
        """Whether a part is done."""
        return self._path(part).is_file()

    def skipped(self, part: int) -> dict[str, str]:
        """The images that a part left out, and why."""
        return read_object(self._skips(part)) if self._skips(part).is_file() else {}

    def write(self, part: int, rows: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> None:
        """Write one part; it counts as done when it appears."""
        if skipped:
            self._skips(part).write_text(json.dumps(skipped), encoding="utf-8")
        with atomic_write(self._path(part)) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=self.schema), temporary)

    def finish(self, parts: int) -> int:
        """Join all parts and remove them; returns the number of rows."""
        rows = 0

        def tables() -> Tables:
            nonlocal rows
            for part in range(parts):
                table = pq.read_table(self._path(part), schema=self.schema)
                rows += table.num_rows
                yield table

        with atomic_write(self.out) as temporary:
            FORMATS[self.out.suffix.lower()](temporary, self.schema, tables())
        shutil.rmtree(self.folder)
        return rows

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.parquet"

    def _skips(self, part: int) -> Path:
        return self.folder / f"{part:06d}.skipped.json"


def check_ending(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is loaded.

    Raises:
        ValueError: it is there already, or its ending is none of `FORMATS`.
    """
    if out.suffix.lower() not in FORMATS:
        raise ValueError(
            f"--out {out}: expected a name that ends with {', '.join(FORMATS)}, got {out.suffix or 'none'}"
        )
    if out.exists():
        raise ValueError(f"--out {out}: already there; give another file")
