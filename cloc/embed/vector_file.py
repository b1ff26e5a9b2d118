"""Service room: vectors on disk. Parts as they come, one Parquet file at the end, and a start in between goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def vector_schema(width: int, facts: Mapping[str, str]) -> pa.Schema:
    """Columns of a file of vectors.

    `image` path as given; `kind` image or region; `region` place of the box in the boxes file, and its `x0, y0, x1, y1`
    in pixels (null for an image); `embedding` E floats of unit norm.

    Args:
        width: E.
        facts: kept in the file's metadata: model, its sha256, the kit's version.
    """
    box = [pa.field(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]
    fields = [pa.field("image", pa.string()), pa.field("kind", pa.string()), pa.field("region", pa.int32()), *box]
    fields.append(pa.field("embedding", pa.list_(pa.float32(), width)))
    return pa.schema(fields, metadata={key.encode(): value.encode() for key, value in facts.items()})


class VectorFile:
    """Writes parts beside the file and joins them when all are there.

    Args:
        out: the Parquet file; it appears when it is whole.
        schema: from `vector_schema`.
        call: everything that decides the content; parts of another call are refused.

    Raises:
        ValueError: `out` exists, parts of another call lie beside it, or its folder cannot be made.
    """

    def __init__(self, out: Path, schema: pa.Schema, call: Mapping[str, Any]) -> None:
        if out.exists():
            raise ValueError(f"--out {out}: already there; give another file")
        self.out, self.schema = out, schema
        self.folder = out.with_name(f"{out.name}.parts")
        text = json.dumps(call, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        told = self.folder / "call.json"
        if told.is_file() and json.loads(told.read_text(encoding="utf-8")) != digest:
            raise ValueError(
                f"--out {out}: {self.folder} holds parts of another call (other images, boxes, model or batch size); "
                "delete that folder or give another file"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out {out}: its folder cannot be made ({error}); give another file") from error
        told.write_text(json.dumps(digest), encoding="utf-8")

    def has(self, part: int) -> bool:
        """Whether a part is done."""
        return self._path(part).is_file()

    def skipped(self, part: int) -> dict[str, str]:
        """The images that a part left out, and why."""
        return json.loads(self._skips(part).read_text(encoding="utf-8")) if self._skips(part).is_file() else {}

    def write(self, part: int, rows: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> None:
        """Write one part; it counts as done when it appears."""
        if skipped:
            self._skips(part).write_text(json.dumps(skipped), encoding="utf-8")
        temporary = self._path(part).with_suffix(".tmp")
        pq.write_table(pa.Table.from_pylist(list(rows), schema=self.schema), temporary)
        temporary.rename(self._path(part))

    def finish(self, parts: int) -> int:
        """Join all parts and remove them; returns the number of rows."""
        temporary = self.out.with_name(f"{self.out.name}.tmp")
        rows = 0
        with pq.ParquetWriter(temporary, self.schema) as writer:
            for part in range(parts):
                table = pq.read_table(self._path(part), schema=self.schema)
                writer.write_table(table)
                rows += table.num_rows
        temporary.rename(self.out)
        shutil.rmtree(self.folder)
        return rows

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.parquet"

    def _skips(self, part: int) -> Path:
        return self.folder / f"{part:06d}.skipped.json"
