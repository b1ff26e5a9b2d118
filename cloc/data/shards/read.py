"""Reading shards by random access: headers are scanned once a shard, members are read where they lie.

Little is kept: the indices of a few shards and no open file, so that memory does not grow with the set.
"""

from __future__ import annotations

import glob
import io
import json
import os
import re
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from cloc.data.shards.card import CARD, read_card
from cloc.structures import DataError, Sample

IMAGE_FORMATS = ("jpg", "png", "webp")
_NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]+)$")
_KEPT_INDICES = 64
_OWN = ("counts", "dropped", "shards", "made")
"""Fields of a card that speak of its own folder."""

_NOT_OURS = (
    "expected schema 1 with width, height and regions, found another tool's JSON (img2dataset's?); tars of photos and "
    "texts train as they are with `kind: pairs`, or make a set of them with `python -m cloc.data.convert pairs "
    "--images FOLDER --out DIR`; `python -m cloc.data.convert --help` lists the layouts with boxes"
)

Members = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ShardIndex:
    """Where the members of one shard lie.

    Attributes:
        path: the tar.
        entries: (key, {file ending: (offset, size) in bytes}) in the order of the tar.
        dropped: members left out, by reason: bad_name, duplicate_member, truncated_shard (the shard ends too early).
    """

    path: Path
    entries: tuple[tuple[str, Members], ...]
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(cls, path: Path) -> ShardIndex:
        """Scan the headers of a tar. A shard cut short gives what is readable, and is counted in `dropped`.

        Raises:
            ValueError: the file is missing, or is no plain tar at all.
        """
        path = Path(path)
        groups: dict[str, Members] = {}
        dropped, last = Counter[str](), ""
        for name, offset, size in _scan(path, dropped):
            match = _NAME.match(name)
            if match is None or name.startswith("/") or ".." in name.split("/"):
                dropped["bad_name"] += 1
                continue
            last, ending = match.group(1), match.group(2).lower()
            members = groups.setdefault(last, {})
            if ending in members:
                dropped["duplicate_member"] += 1
                continue
            members["jpg" if ending == "jpeg" else ending] = (offset, size)
        if dropped["truncated_shard"] and len(groups) > 1 and set(groups[last]) != set(next(iter(groups.values()))):
            del groups[last]  # the cut went through this sample
        return cls(path, tuple(groups.items()), +dropped)

    def __len__(self) -> int:
        return len(self.entries)


def _scan(path: Path, dropped: Counter[str]) -> list[tuple[str, int, int]]:
    """(name, offset, size) of every whole file in a tar; the first broken header ends it and is counted."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a shard, found no file; check the path, or make the set again")
    length, found, tail = path.stat().st_size, [], b""
    if length:
        try:
            tar = tarfile.open(path, "r:")
        except tarfile.ReadError as error:
            raise ValueError(f"{path}: expected an uncompressed tar, got a file that is none ({error})") from error
        with tar, path.open("rb") as file:
            found = list(_whole_files(tar, length))
            file.seek(tar.offset)
            tail = file.read(tarfile.BLOCKSIZE)
    if tail != bytes(
        tarfile.BLOCKSIZE
    ):  # a whole tar ends in zeros; the library takes a cut header for the end as well
        dropped["truncated_shard"] += 1
    return found


def _whole_files(tar: tarfile.TarFile, length: int) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) up to the first member that the file of `length` bytes does not hold whole."""
    try:
        while (member := tar.next()) is not None and member.offset_data + member.size <= length:
            tar.members.clear()  # else the library keeps every header
            if member.isfile():
                yield member.name, member.offset_data, member.size
    except tarfile.ReadError:
        return  # the file ends before the next header; the caller sees that no zeros end it


class ShardSet:
    """Shards in a fixed order, with how many samples each holds.

    Attributes:
        shards: paths, in order.
        counts: samples in each: what the card says, else what was found in the tar.
        card: the content of `dataset.json`, None where there is none.
        kind: `pairs`, `regions`, `detection` or `grounding`: what the card says, else what `open` was told.
    """

    def __init__(
        self, shards: tuple[Path, ...], counts: tuple[int, ...], card: dict[str, Any] | None, kind: str | None = None
    ) -> None:
        self.shards, self.counts, self.card = shards, counts, card
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
            shards = sorted(folder.glob("*.tar")) if bare else [folder / name for name in _listed(card, folder)]
        else:
            shards = _met_by(str(source))
        if not shards:
            raise ValueError(
                f"{source}: expected a folder with NNNNNN.tar shards or a pattern that meets some, found none; "
                "make some with `python -m cloc.data.scenes` or `python -m cloc.data.convert`"
            )
        missing = [path.name for path in shards if not path.is_file()]
        if missing:
            raise ValueError(
                f"{folder / CARD} names {len(missing)} shards that are not there (first: {missing[0]}); "
                "copy the whole folder, or make the set again"
            )
        cards = {place: read_card(place) for place in dict.fromkeys(path.parent for path in shards)}
        told = {place: _listed(card or {}, place) for place, card in cards.items()}
        known = [told[path.parent].get(path.name) for path in shards]
        counts = (len(ShardIndex.open(p)) if count is None else count for p, count in zip(shards, known, strict=True))
        return cls(tuple(shards), tuple(counts), _said_alike(list(cards.values())), kind)

    @property
    def num_samples(self) -> int:
        """Samples in all shards, by `counts`."""
        return sum(self.counts)

    def index(self, shard: int) -> ShardIndex:
        """The index of one shard; the last few are kept."""
        if shard in self._indices:
            self._indices.move_to_end(shard)
        else:
            self._indices[shard] = ShardIndex.open(self.shards[shard])
            if len(self._indices) > _KEPT_INDICES:
                self._indices.popitem(last=False)
        return self._indices[shard]

    def read_sample(self, shard: int, i: int) -> Sample:
        """Sample number `i` of shard number `shard`, both from 0. The image stays encoded.

        Raises:
            DataError: this sample cannot be used; `reason` is truncated_shard, missing_image, missing_json, bad_json,
                bad_text, bad_image, image_too_large, or one of `Sample`'s own.
            IndexError: there is no such number by `counts`.
        """
        if not 0 <= i < self.counts[shard]:
            raise IndexError(f"{self.shards[shard]}: sample {i} of {self.counts[shard]}")
        index = self.index(shard)
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
        data = _read(index.path, {e: members[e] for e in (image_format, "json", "txt") if e in members})
        caption, meta = _texts(where, data, image=data[image_format])
        if "schema" not in meta:  # img2dataset's JSON, or another tool's
            if self.kind != "pairs":
                raise DataError("bad_schema", f"{where}.json: {_NOT_OURS}")
            caption, meta = _texts(where, {"txt": caption.encode()}, image=data[image_format])
        return Sample.from_json(key, data[image_format], image_format, caption, meta)


def _met_by(pattern: str) -> list[Path]:
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


def _said_alike(cards: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The one card, or what several say alike beyond what is a folder's own; None where a folder has no card."""
    first, *others = cards
    if first is None or None in others or not others:
        return None if others else first
    alike = (name for name in first if name not in _OWN and all(card.get(name) == first[name] for card in others))
    return {name: first[name] for name in alike}


def _listed(card: dict[str, Any], folder: Path) -> dict[str, int]:
    """Name of each shard that the card lists, in its order, and how many samples it holds.

    Raises:
        ValueError: an entry is none, or names a file outside the card's own folder.
    """
    listed = {}
    for entry in card.get("shards", ()):
        name, samples = (entry.get("file"), entry.get("samples")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or name != Path(name).name or name == ".." or not isinstance(samples, int):
            raise ValueError(
                f"{folder / CARD}: expected shards with `file` (a name without folders) and `samples` (a whole "
                f"number), got {entry!r}; make the set again"
            )
        listed[name] = samples
    return listed


def _read(path: Path, wanted: Members) -> dict[str, bytes]:
    handle = os.open(path, os.O_RDONLY)
    try:
        return {ending: os.pread(handle, size, offset) for ending, (offset, size) in wanted.items()}
    finally:
        os.close(handle)


def _texts(where: str, data: dict[str, bytes], image: bytes) -> tuple[str, dict[str, Any]]:
    """Caption and JSON of a sample; a set of pairs may lack the JSON, then the size comes from the image's header."""
    try:
        caption = data["txt"].decode().strip() if "txt" in data else None
    except UnicodeDecodeError as error:
        raise DataError("bad_text", f"{where}.txt: expected UTF-8 text ({error})") from error
    if "json" in data:
        try:
            meta = json.loads(data["json"])
        except ValueError as error:
            raise DataError("bad_json", f"{where}.json: expected JSON ({error})") from error
        if not isinstance(meta, dict):
            raise DataError("bad_json", f"{where}.json: expected an object, got {type(meta).__name__}")
        told = meta.get("caption")
        return caption if caption is not None else (told if isinstance(told, str) else ""), meta
    try:
        with Image.open(io.BytesIO(image)) as header:
            size = header.size
    except Image.DecompressionBombError as error:
        raise DataError("image_too_large", f"{where}: {error}") from error
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError("bad_image", f"{where}: the image's header cannot be read ({error})") from error
    return caption or "", {"schema": 1, "width": size[0], "height": size[1], "regions": []}
