"""Reading shards by random access: headers are scanned once a shard, members are read where they lie.

Little is kept: the indices of a few shards and no open file, so that memory does not grow with the set.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloc.data.shards.card import CARD, read_card
from cloc.files import parse_object
from cloc.formats.tar_index import Members, ShardIndex
from cloc.images import ImageError, read_header
from cloc.structures import DataError, Sample

IMAGE_FORMATS = ("jpg", "png", "webp")
_KEPT_INDICES = 64
_LARGEST_IMAGE, _LARGEST_TEXT = 1 << 28, 1 << 25
"""Bytes of an encoded image, and of a caption or JSON, that are read at most."""
_OWN = ("counts", "dropped", "shards", "made")
"""Fields of a card that speak of its own folder."""

_NOT_OURS = (
    "expected schema 1 with width, height and regions, found another tool's JSON (img2dataset's?); tars of photos and "
    "texts train as they are with `kind: pairs`, or make a set of them with `python -m cloc.convert pairs "
    "--images FOLDER --out DIR`; `python -m cloc.convert --help` lists the layouts with boxes"
)


class ShardSet:
    """Shards in a fixed order, with how many samples each holds.

    Attributes:
        shards: paths, in order.
        counts: samples in each: what the card says, else what was found in the tar.
        card: the content of `dataset.json`, None where there is none.
        kind: `pairs`, `regions`, `detection` or `grounding`: what the card says, else what `open` was told.
        sha256: of each shard as the card says, None where it does not.
    """

    def __init__(
        self,
        shards: tuple[Path, ...],
        counts: tuple[int, ...],
        card: dict[str, Any] | None,
        kind: str | None = None,
        sha256: tuple[str | None, ...] | None = None,
    ) -> None:
        self.shards, self.counts, self.card = shards, counts, card
        self.sha256 = sha256 or (None,) * len(shards)
        self.kind = kind if card is None else card.get("kind", kind)
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()

    @classmethod
    def open(cls, source: Path | str, kind: str | None = None) -> ShardSet:
        """Open a folder of shards (with or without a card) or a pattern such as `folder/*.tar`.

        Args:
            source: the folder, or a pattern: `*`, `?`, `[]`, braces as in `{000..041}.tar`, several with `::` between.
                Shards of several folders count by their own folder's card; the set's card is what all these say alike.
            kind: what shards without a card hold; `pairs` may lack the JSON.

        Raises:
            ValueError: there is no shard, one that a card or pattern names is missing, or a card's list cannot be used.
        """
        folder = Path(source)
        if folder.is_dir():
            card = read_card(folder)
            bare = card is None or "shards" not in card
            shards = sorted(folder.glob("*.tar")) if bare else [folder / name for name in _list_shards(card)]
        else:
            shards = _find_files(str(source))
        if not shards:
            raise ValueError(
                f"{source}: expected a folder with NNNNNN.tar shards or a pattern that meets some, found none; "
                "make some with `python -m cloc.scenes` or `python -m cloc.convert`"
            )
        missing = [path.name for path in shards if not path.is_file()]
        if missing:
            raise ValueError(
                f"{folder / CARD} names {len(missing)} shards that are not there (first: {missing[0]}); "
                "copy the whole folder, or make the set again"
            )
        cards = {folder: read_card(folder) for folder in dict.fromkeys(path.parent for path in shards)}
        listed = {folder: _list_shards(card or {}) for folder, card in cards.items()}
        known = [listed[path.parent].get(path.name, (None, None)) for path in shards]
        counts = (len(ShardIndex.open(p)) if n is None else n for p, (n, _) in zip(shards, known, strict=True))
        hashes = tuple(sha256 for _, sha256 in known)
        return cls(tuple(shards), tuple(counts), _find_common(list(cards.values())), kind, hashes)

    @property
    def num_samples(self) -> int:
        """Samples in all shards, by `counts`."""
        return sum(self.counts)

    def altered_shards(self) -> Iterator[Path]:
        """The shards whose SHA-256 is not the one that their card tells; reads every byte of those that it tells."""
        for path, expected in zip(self.shards, self.sha256, strict=True):
            if expected is not None:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                        yield path

    def index(self, shard: int) -> ShardIndex:
        """The index of one shard; the last few are kept. A file that is no tar gives an empty one with its fault.

        Raises:
            OSError: the file is gone or cannot be read, which is no fault of the data.
        """
        if shard in self._indices:
            self._indices.move_to_end(shard)
        else:
            path = self.shards[shard]
            path.stat()
            try:
                self._indices[shard] = ShardIndex.open(path)
            except ValueError as error:
                self._indices[shard] = ShardIndex(path, (), Counter(bad_shard=1), str(error))
            if len(self._indices) > _KEPT_INDICES:
                self._indices.popitem(last=False)
        return self._indices[shard]

    def read_sample(self, shard: int, i: int) -> Sample:
        """Sample number `i` of shard number `shard`, both from 0. The image stays encoded.

        Raises:
            DataError: this sample cannot be used; `reason` is bad_shard, truncated_shard, missing_image, missing_json,
                bad_json, bad_text, bad_image, image_too_large, member_too_large, or one of `Sample`'s own.
            OSError: the shard is gone or cannot be read.
            IndexError: there is no such number by `counts`.
        """
        if not 0 <= i < self.counts[shard]:
            raise IndexError(f"{self.shards[shard]}: sample {i} of {self.counts[shard]}")
        index = self.index(shard)
        if index.fault:
            raise DataError("bad_shard", index.fault)
        if i >= len(index):
            message = f"{index.path}: expected {self.counts[shard]} samples, the file ends after {len(index)}"
            raise DataError("truncated_shard", f"{message}; copy it again, or make the set again")
        key, members = index.entries[i]
        where = f"{index.path}:{key}"
        image_format = next((ending for ending in IMAGE_FORMATS if ending in members), None)
        if image_format is None:
            raise DataError("missing_image", f"{where}: expected .jpg, .png or .webp, got {sorted(members)}")
        if "json" not in members and self.kind != "pairs":
            raise DataError("missing_json", f"{where}: expected a .json member beside the image, got {sorted(members)}")
        wanted = {e: members[e] for e in (image_format, "json", "txt") if e in members}
        for ending, (_, size) in wanted.items():
            most = _LARGEST_IMAGE if ending == image_format else _LARGEST_TEXT
            if size > most:
                raise DataError("member_too_large", f"{where}.{ending}: {size:,} bytes; at most {most:,} are read")
        data = _read(index.path, wanted)
        caption, meta = _read_texts(where, data, image=data[image_format])
        if "schema" not in meta:  # img2dataset's JSON, or another tool's
            if self.kind != "pairs":
                raise DataError("bad_schema", f"{where}.json: {_NOT_OURS}")
            caption, meta = _read_texts(where, {"txt": caption.encode()}, image=data[image_format])
        return Sample.from_json(key, data[image_format], image_format, caption, meta)


def _find_files(pattern: str) -> list[Path]:
    """The files that a pattern meets, each part's in order; what braces spell out has to be there."""
    parts = [pattern]
    if "{" in pattern or "::" in pattern:
        from webdataset.shardlists import expand_urls

        parts = expand_urls(pattern)
    found = [Path(name) for part in parts for name in sorted(glob.glob(part))]
    absent = [part for part in parts if not glob.has_magic(part) and not Path(part).is_file()]
    if found and absent:
        raise ValueError(
            f"{pattern}: {len(absent)} of the {len(parts)} shards that it names are not there (first: {absent[0]}); "
            "correct the range, or copy the missing files"
        )
    return found


def _find_common(cards: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The one card, or what several say alike beyond what is a folder's own; None where a folder has no card."""
    first, *others = cards
    if first is None or None in others or not others:
        return None if others else first
    alike = (name for name in first if name not in _OWN and all(card.get(name) == first[name] for card in others))
    return {name: first[name] for name in alike}


def _list_shards(card: dict[str, Any]) -> dict[str, tuple[int, str | None]]:
    """Name of each shard that the card lists, in its order: how many samples it holds, and its SHA-256."""
    return {entry["file"]: (entry["samples"], entry.get("sha256")) for entry in card.get("shards", ())}


def _read(path: Path, wanted: Members) -> dict[str, bytes]:
    handle = os.open(path, os.O_RDONLY)
    try:
        return {ending: os.pread(handle, size, offset) for ending, (offset, size) in wanted.items()}
    finally:
        os.close(handle)


def _read_texts(where: str, data: dict[str, bytes], image: bytes) -> tuple[str, dict[str, Any]]:
    """Caption and JSON of a sample; a set of pairs may lack the JSON, then the size comes from the image's header."""
    try:
        caption = data["txt"].decode().strip() if "txt" in data else None
    except UnicodeDecodeError as error:
        raise DataError("bad_text", f"{where}.txt: expected UTF-8 text ({error})") from error
    if "json" in data:
        try:
            meta = parse_object(data["json"], f"{where}.json")
        except ValueError as error:
            raise DataError("bad_json", str(error)) from error
        own_caption = meta.get("caption")
        return caption if caption is not None else (own_caption if isinstance(own_caption, str) else ""), meta
    try:
        size = read_header(image)[1]
    except ImageError as error:
        reason = "image_too_large" if error.reason == "too_large" else "bad_image"
        raise DataError(reason, f"{where}: the image's header cannot be read ({error})") from error
    return caption or "", {"schema": 1, "width": size[0], "height": size[1], "regions": []}
