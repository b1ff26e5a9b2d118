"""Writing shards: `KEY.jpg|png|webp`, `KEY.json` and `KEY.txt` in tars that have the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloc.data.shards.card import KINDS, ShardEntry, complete_card, find_made, write_card
from cloc.disk import atomic_dir, atomic_write
from cloc.structures import Sample

_write_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _list_members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    yield f"{sample.key}.{sample.image_format}", sample.image
    yield f"{sample.key}.json", _write_json(sample.to_json()).encode()
    yield f"{sample.key}.txt", sample.caption.encode()


def _pack(sample: Sample) -> Iterator[bytes]:
    """The members as they lie in a tar: each a header, its content, and zeros up to a whole block."""
    (image, data), *texts = _list_members(sample)
    yield make_header(image, len(data))
    yield data  # by itself: joined to the rest it would be copied once more
    rest = [bytes(-len(data) % tarfile.BLOCKSIZE)]
    for name, text in texts:
        rest += [make_header(name, len(text)), text, bytes(-len(text) % tarfile.BLOCKSIZE)]
    yield b"".join(rest)


class _Hashed(io.FileIO):
    """A new file that is hashed while it is written, so that a shard need not be read again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        written = super().write(data)
        while written < len(data):  # a device may take less than it is given
            written += super().write(memoryview(data)[written:])
        return written


def make_header(name: str, size: int) -> bytes:
    """The tar header of a member: 0644, no time, no owner. The same bytes as from `tarfile`, where it is plain faster.

    Args:
        name: of the member.
        size: of its content in bytes.
    """
    plain, octal = name.encode("ascii", "ignore"), b"%011o" % size
    if len(plain) == len(name) <= 100 and name[-1:] != "/" and size < 8**11:
        filled = bytearray(_BLANK)
        filled[: len(plain)] = plain
        filled[124:135] = octal
        filled[148:154] = b"%06o" % (_BLANK_SUM + sum(plain) + sum(octal))
        return bytes(filled)
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _make_blank() -> bytes:
    """A header without name, size and sum; for the sum of all bytes it is itself taken for eight blanks."""
    info = tarfile.TarInfo("")
    info.mode = 0o644
    blank = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    blank[124:135] = bytes(11)
    blank[148:156] = b" " * 8
    return bytes(blank)


_BLANK_SUM = sum(_make_blank())
_BLANK = _make_blank()[:154] + b"\0 " + _make_blank()[156:]


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardEntry:
    """Write one tar; equal samples give equal bytes (no times, no owners).

    A sample that no JSON or no UTF-8 can hold is left out and counted as bad_sample.

    Raises:
        ValueError: two samples have the same key.
    """
    counts, dropped, keys, size = Counter[str](samples=0, captions=0, regions=0), Counter[str](), set[str](), 0
    with atomic_write(path) as temporary, _Hashed(temporary) as file:
        for sample in samples:
            if sample.key in keys:
                raise ValueError(f"{path.name}: expected different keys, got {sample.key!r} twice; rename one image")
            try:
                packed = tuple(_pack(sample))
            except (ValueError, TypeError, RecursionError):  # infinity, half a surrogate pair, nesting without end
                dropped["bad_sample"] += 1
                dropped["region_of_dropped_image"] += len(sample.regions)
                continue
            keys.add(sample.key)
            # tarfile would write a photo in pieces of 16 KiB, which takes twice as long
            size += sum(map(file.write, packed))
            counts["samples"] += 1
            counts["captions"] += bool(sample.caption)
            counts["regions"] += len(sample.regions)
            dropped.update(sample.dropped)
        end = size + 2 * tarfile.BLOCKSIZE
        file.write(bytes(end + -end % tarfile.RECORDSIZE - size))
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
    there = find_made(out, card.get("made", {}))
    if there is not None:
        return there
    entries, rest = list[ShardEntry](), iter(samples)
    with atomic_dir(out) as folder:
        while (first := next(rest, None)) is not None:
            shard = itertools.chain([first], itertools.islice(rest, shard_size - 1))
            entries.append(write_shard(folder / f"{len(entries):06d}.tar", shard))
        if not entries:
            raise ValueError(f"{out}: expected at least one sample to write, got none")
        whole = complete_card(card, entries)
        write_card(folder, whole)
    return whole
