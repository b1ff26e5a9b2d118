"""Evaluation splits as the check sees them: which photos they hold, and how they number their categories."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cloc.data.tables import open_samples
from cloc.formats.annotated import load_json
from cloc.formats.plain_pickle import load_plain_pickle
from cloc.formats.rows import read_json_rows
from cloc.structures import DataError, Sample

_COCO = re.compile(r"(?:^|_)(\d{12})(?:_\d+)?\.\w+$")


@dataclass(frozen=True)
class Evaluation:
    """One split that models are scored on.

    Attributes:
        name: of its file or folder.
        photos: names as `normalise_photo_name` gives them.
        hashes: of the encoded photos, where these are at hand (shards and tables).
        categories: id to name, empty where there are none.
    """

    name: str
    photos: frozenset[str]
    hashes: frozenset[int] = frozenset()
    categories: Mapping[int, str] = field(default_factory=dict)


def normalise_photo_name(file_name: str) -> str:
    """A name that is equal for the same photo in different releases: COCO's by its number, any other by its file name.

    `COCO_train2014_000000000009.jpg`, `train2017/000000000009.jpg` and refer's `COCO_train2014_000000000009_3.jpg` are
    one photo.
    """
    base = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    number = _COCO.search(base)
    return f"coco:{int(number.group(1))}" if number else base


def find_photo_names(sample: Sample) -> set[str]:
    """The names under which the photo of a sample is known; empty where its `source` tells none."""
    source = sample.extras.get("source")
    if not isinstance(source, Mapping):
        return set()
    names = {normalise_photo_name(source["file_name"])} if isinstance(source.get("file_name"), str) else set()
    if isinstance(source.get("coco_id"), int):
        names.add(f"coco:{source['coco_id']}")
    return names


def hash_bytes(data: bytes) -> int:
    """64 bits of a photo's bytes: equal files have equal ones, and a set of them is small."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def read_evaluations(path: Path) -> list[Evaluation]:
    """The evaluation splits at a path: one file or folder of shards, or all of RefCOCO's files below its root.

    Args:
        path: see `read_evaluation`; or a folder with `refs(*).p` (else `.json`) or `REC_*.jsonl` in it or one level
            below, such as refer's data root, of which each file is a split by the name of its folder and its own.

    Raises:
        ValueError: it is none of these.
    """
    path = Path(path)
    for pattern in ("refs(*).p", "refs(*).json", "REC_*.jsonl"):
        files = sorted([*path.glob(pattern), *path.glob(f"*/{pattern}")]) if path.is_dir() else []
        if files:
            return [replace(read_evaluation(file), name=f"{file.parent.name}/{file.name}") for file in files]
    return [read_evaluation(path)]


def read_evaluation(path: Path) -> Evaluation:
    """Read an evaluation split: shards or a table, or an official file.

    Args:
        path: folder of shards; COCO's or LVIS's JSON (`images`); refer's `refs(*).p` or `.json`; `REC_*.jsonl`.

    Raises:
        ValueError: it is none of these.
    """
    path = Path(path)
    if path.suffix == ".jsonl" and path.is_file():
        rows = read_json_rows(path, Counter())
        return _from_names(path, (row.get("img_path") for row in rows))
    if path.suffix == ".p":
        return _from_refs(path, load_plain_pickle(path, "the refer toolkit's list of refs"))
    if path.suffix == ".json":
        content = load_json(path, "COCO's, LVIS's or the refer toolkit's JSON")
        if isinstance(content, list):
            return _from_refs(path, content)
        return _from_images(path, content)
    return _from_samples(path)


def _from_names(path: Path, names: Iterable[object]) -> Evaluation:
    photos = frozenset(normalise_photo_name(name) for name in names if isinstance(name, str))
    if not photos:
        raise ValueError(f"{path}: expected the photos of an evaluation split, found no photo named in it")
    return Evaluation(path.name, photos)


def _from_refs(path: Path, refs: object) -> Evaluation:
    """Refs of the evaluation splits only: the same file holds train."""
    if not isinstance(refs, list) or not all(isinstance(ref, Mapping) for ref in refs):
        raise ValueError(f"{path}: expected the refer toolkit's list of refs, got {type(refs).__name__}")
    ids = (ref.get("image_id") for ref in refs if ref.get("split") != "train")
    photos = frozenset(f"coco:{number}" for number in ids if isinstance(number, int))
    if not photos:
        raise ValueError(f"{path}: expected refs of val or test splits, found none")
    return Evaluation(path.name, photos)


def _from_images(path: Path, content: Any) -> Evaluation:
    images = content.get("images") if isinstance(content, Mapping) else None
    if not isinstance(images, list):
        raise ValueError(f"{path}: expected COCO's or LVIS's JSON with the list images, found none in it")
    entries = (entry for entry in images if isinstance(entry, Mapping))
    found = _from_names(path, (entry.get("file_name") or entry.get("coco_url") for entry in entries))
    listed = content.get("categories")
    entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    named = ((entry.get("id"), entry.get("name")) for entry in entries)
    categories = {number: name for number, name in named if isinstance(number, int) and isinstance(name, str)}
    return Evaluation(path.name, found.photos, categories=categories)


def _from_samples(path: Path) -> Evaluation:
    samples = open_samples(path)
    photos, hashes = set[str](), set[int]()
    for shard, count in enumerate(samples.counts):
        for row in range(count):
            try:
                sample = samples.read_sample(shard, row)
            except DataError:
                continue  # an unreadable evaluation image can be trained on by nobody
            photos |= find_photo_names(sample)
            hashes.add(hash_bytes(sample.image))
    listed = (samples.card or {}).get("categories", ())
    return Evaluation(path.name, frozenset(photos), frozenset(hashes), {c["id"]: c["name"] for c in listed})
