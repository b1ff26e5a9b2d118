"""Writing shards: `KEY.jpg|png|webp`, `KEY.json` and `KEY.txt` in tars that have the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloc.data.shards.card import KINDS, ShardEntry, Staging, already_made, full_card
from cloc.structures import Sample


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    yield f"{sample.key}.{sample.image_format}", sample.image
    meta = json.dumps(sample.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    yield f"{sample.key}.json", meta.encode()
    yield f"{sample.key}.txt", sample.caption.encode()


class _Hashed(io.FileIO):
    """A new file that is hashed while it is written, so that a shard need not be read again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        view, left = memoryview(data), len(data)
        while left:
            left -= super().write(view[len(data) - left :])
        return len(data)


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardEntry:
    """Write one tar; equal samples give equal bytes (no times, no owners).

    Raises:
        ValueError: two samples have the same key.
    """
    counts, dropped, keys = Counter[str](), Counter[str](), set[str]()
    temporary = path.with_name(f"{path.name}.part")
    with (
        _Hashed(temporary) as file,
        tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar,
    ):
        for sample in samples:
            if sample.key in keys:
                raise ValueError(f"{path.name}: expected different keys, got {sample.key!r} twice; rename one image")
            keys.add(sample.key)
            for name, data in _members(sample):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
            counts.update(samples=1, captions=int(bool(sample.caption)), regions=len(sample.regions))
            dropped.update(sample.dropped)
    temporary.replace(path)
    return ShardEntry(path.name, counts["samples"], file.digest.hexdigest(), counts, dropped)


def write_shards(
    samples: Iterable[Sample], out: Path, card: Mapping[str, Any], shard_size: int = 1000
) -> dict[str, Any]:
    """Write samples as shards with a card; a set that is already there and was made in the same way is left alone.

    Args:
        samples: in the order in which they are to lie; taken one shard at a time.
        out: folder to make.
        card: name, kind, licence, made (the parameters that decide the content), and any further fields. Its
            `dropped` is read after the last sample, so a generator may count into it.
        shard_size: samples a shard.

    Returns:
        The card, with counts, dropped and shards.

    Raises:
        ValueError: the kind is unknown, `out` holds something else, there are no samples, or two keys are equal.
    """
    if card.get("kind") not in KINDS:
        raise ValueError(f"card: expected kind to be one of {', '.join(KINDS)}, got {card.get('kind')!r}")
    if shard_size < 1:
        raise ValueError(f"shard_size: expected at least 1, got {shard_size}")
    there = already_made(out, card.get("made", {}))
    if there is not None:
        return there
    staging, entries, rest = Staging(out), [], iter(samples)
    for number in itertools.count():
        first = next(rest, None)
        if first is None:
            break
        shard = itertools.chain([first], itertools.islice(rest, shard_size - 1))
        entries.append(write_shard(staging.folder / f"{number:06d}.tar", shard))
    if not entries:
        shutil.rmtree(staging.folder)
        raise ValueError(f"{out}: expected at least one sample to write, got none")
    whole = full_card(card, entries)
    staging.finish(whole)
    return whole
