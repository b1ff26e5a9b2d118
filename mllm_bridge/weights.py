"""Tensors of a host on disk: which are the tower's, which the projector's; read, hashed and replaced key by key.

Hosts occur in four layouts (`vision_tower.*` or `model.vision_tower.*`, each with or without a `vision_model.` level).
All are read, and the layout that came is the layout that is written. What is neither tower nor projector is passed on
byte for byte.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from mllm_bridge.folders import read_json, write_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LEVEL = "vision_model."
"""A level that CLIP-like classes had before transformers 5.6; both forms load today."""


def weight_map(folder: Path) -> dict[str, Path]:
    """Every key of a model folder and the file that holds it.

    Raises:
        ValueError: there are no safetensors files, or the index names a file that is missing or lacks a key.
    """
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map", {})
        missing = sorted({file for file in named.values() if not (folder / file).is_file()})
        if missing:
            raise ValueError(f"{folder / INDEX} names {', '.join(missing)}, which is not there; copy the missing files")
        files = sorted(set(named.values()))
    elif (folder / SINGLE).is_file():
        named, files = None, [SINGLE]
    else:
        raise ValueError(
            f"{folder} holds neither {SINGLE} nor {INDEX}; pickled weights are never loaded: "
            "save the model again with safetensors"
        )
    found = {key: folder / file for file in files for key in keys_of(folder / file)}
    lost = sorted(set(named or ()) - set(found))
    if lost:
        raise ValueError(f"{folder / INDEX} names {lost[0]} (and {len(lost) - 1} more), which no file holds")
    return found


def keys_of(file: Path) -> list[str]:
    """The keys of one safetensors file; only its header is read.

    Raises:
        ValueError: the file is cut short or no safetensors file.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except SafetensorError as error:
        raise ValueError(f"{file} cannot be read as safetensors ({error}); is it complete?") from error


def read(places: Mapping[str, Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Key and tensor, one at a time, file by file."""
    for file in sorted(set(places.values())):
        with safe_open(file, framework="pt") as opened:
            for key in (key for key, place in places.items() if place == file):
                yield key, opened.get_tensor(key)


def tensor_hash(tensor: torch.Tensor) -> str:
    """sha256 of a tensor's type, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def combined_hash(hashes: Mapping[str, str]) -> str:
    """One sha256 for a set of named tensor hashes, whatever their order."""
    return hashlib.sha256("".join(f"{key}:{value};" for key, value in sorted(hashes.items())).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """The keys of one part (tower, projector) of a host on disk.

    Attributes:
        prefix: what precedes the part's own names, as `vision_tower.` or `model.vision_tower.vision_model.`.
        keys: the full keys.
    """

    prefix: str
    keys: tuple[str, ...]

    def name(self, key: str) -> str:
        """The part's own name for a full key."""
        return key.removeprefix(self.prefix)


def find_part(keys: Iterable[str], prefixes: Sequence[str]) -> Part | None:
    """The part that lies under one of `prefixes`, or None."""
    keys = list(keys)
    for prefix in prefixes:
        found = tuple(key for key in keys if key.startswith(prefix))
        if found:
            level = LEVEL if all(key.startswith(prefix + LEVEL) for key in found) else ""
            return Part(prefix + level, found)
    return None


def write_replaced(
    host: Path, out: Path, replaced: Mapping[str, str], new: Mapping[str, Mapping[str, torch.Tensor]]
) -> None:
    """Write the weights of `host` into `out` with some parts exchanged; the other tensors are passed on as they are.

    Args:
        host: folder of the host.
        out: an existing folder without weights.
        replaced: each key that goes, and the part it belongs to.
        new: for each part its new tensors by full key; they go into the file that held the part's first key.
    """
    places = weight_map(host)
    written, total, target = {}, 0, {}
    for key, part in replaced.items():
        target.setdefault(part, places[key])
    for file in tqdm(sorted(set(places.values())), desc="writing weights", disable=len(set(places.values())) < 3):
        gone = [key for key in replaced if places[key] == file]
        kept = {key: place for key, place in places.items() if place == file and key not in replaced}
        fresh = {key: value for part, values in new.items() if target[part] == file for key, value in values.items()}
        if not gone:
            shutil.copyfile(file, out / file.name)
        elif kept or fresh:
            tensors = {**dict(read(kept)), **{key: value.detach().cpu().contiguous() for key, value in fresh.items()}}
            save_file(tensors, out / file.name, metadata={"format": "pt"})
        written.update(dict.fromkeys([*kept, *fresh], file.name))
    if (host / INDEX).is_file():
        for name in sorted(set(written.values())):
            with safe_open(out / name, framework="pt") as opened:
                total += sum(opened.get_tensor(key).nbytes for key in opened.keys())
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(written.items()))})
