"""Tensors of a host on disk: which are the tower's, which the projector's; read, hashed and replaced key by key.

Hosts occur in four layouts (`vision_tower.*` or `model.vision_tower.*`, each with or without a `vision_model.` level).
All are read; what is written begins as it came (`model.` or not) and has the level, as published checkpoints do. What
is neither tower nor projector is passed on byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from tqdm import tqdm

from cloc.disk import atomic_write
from cloc.files import write_json
from mllm_bridge.weights.folders import read_json
from mllm_bridge.weights.tensorfile import NAMES, Stored, read_chunks, read_header, write_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LEVEL = "vision_model."
"""A level that CLIP-like classes had before transformers 5.6; both forms load today."""
LEVELLED = ("clip_vision_model", "siglip_vision_model")


@dataclass(frozen=True, slots=True)
class FolderWeights:
    """Where each tensor of a model folder lies. Opening it parses the header of each file, once.

    Attributes:
        folder: the model's.
        tensors: every key, file by file.
        metadata: what each file says about itself.
    """

    folder: Path
    tensors: Mapping[str, Stored]
    metadata: Mapping[Path, Mapping[str, str]]

    @classmethod
    def open(cls, folder: Path) -> FolderWeights:
        """Read the headers of a folder's files, and no weight.

        Raises:
            ValueError: there are no safetensors files, one is cut short, or the index is none, or names a file that
                lies elsewhere, is missing or lacks a key.
        """
        if (folder / INDEX).is_file():
            named = _named(folder / INDEX)
            missing = sorted({file for file in named.values() if not (folder / file).is_file()})
            if missing:
                raise ValueError(
                    f"{folder / INDEX} names {', '.join(missing)}, which is not there; copy the missing files"
                )
            files = sorted(set(named.values()))
        elif (folder / SINGLE).is_file():
            named, files = None, [SINGLE]
        else:
            raise ValueError(
                f"{folder} holds neither {SINGLE} nor {INDEX}; pickled weights are never loaded: "
                "save the model again with safetensors"
            )
        headers = {folder / file: read_header(folder / file) for file in files}
        tensors = {key: tensor for stored, _ in headers.values() for key, tensor in stored.items()}
        lost = sorted(set(named or ()) - set(tensors))
        if lost:
            raise ValueError(f"{folder / INDEX} names {lost[0]} (and {len(lost) - 1} more), which no file holds")
        return cls(folder, tensors, {file: metadata for file, (_, metadata) in headers.items()})

    def of_file(self, file: Path) -> dict[str, Stored]:
        """The tensors of one of the folder's files."""
        return {key: tensor for key, tensor in self.tensors.items() if tensor.file == file}


def _named(index: Path) -> dict[str, str]:
    """The index's own map. Files lie beside it: two of one name in two folders would be written over each other."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(f, str) and Path(f).name == f for f in named.values()):
        raise ValueError(
            f"{index}: expected a weight_map from keys to names of files in its own folder; save the model again with "
            "save_pretrained"
        )
    return named


def read_tensors(stored: Mapping[str, Stored]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, one at a time, file by file."""
    for file in sorted({tensor.file for tensor in stored.values()}):
        with safe_open(file, framework="pt") as opened:
            for name, tensor in stored.items():
                if tensor.file == file:
                    yield name, opened.get_tensor(tensor.key)


def hash_tensor(tensor: torch.Tensor) -> str:
    """sha256 of a tensor's type, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_stored(tensor: Stored) -> str:
    """`hash_tensor` of a tensor in a file, read piece by piece and never held."""
    dtype = next((dtype for dtype, name in NAMES.items() if name == tensor.dtype), tensor.dtype)
    digest = hashlib.sha256(f"{dtype}{tensor.shape}".encode())
    for chunk in read_chunks(tensor):
        digest.update(chunk)
    return digest.hexdigest()


def combine_hashes(hashes: Mapping[str, str]) -> str:
    """One sha256 for a set of named tensor hashes, whatever their order."""
    return hashlib.sha256("".join(f"{key}:{value};" for key, value in sorted(hashes.items())).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """The keys of one part (tower, projector) of a host on disk.

    Attributes:
        prefix: what precedes the part's own names, as `vision_tower.` or `model.vision_tower.vision_model.`.
        keys: the full keys.
        level: the last part of the prefix, if it is the level that old CLIP-like classes had, else empty.
    """

    prefix: str
    keys: tuple[str, ...]
    level: str = ""

    def prefix_for(self, model_type: str) -> str:
        """The prefix for a tower of another type: only CLIP-like classes know the level, and they always get it.

        Every published checkpoint of the families that take them has it (llava-hf's, PaliGemma, Gemma 3, Aya Vision:
        `vision_tower.vision_model.`), and serving engines ask for it; transformers 5.6 and later saves without it and
        reads both.
        """
        bare = self.prefix.removesuffix(self.level)
        return bare + LEVEL if model_type in LEVELLED else bare

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
            return Part(prefix + level, found, level)
    return None


def write_level(folder: Path, model_type: str, prefixes: Iterable[str]) -> None:
    """Give a host's tower on disk the level that published checkpoints have, in place; see `Part.prefix_for`.

    Args:
        folder: as transformers saved it.
        model_type: of the tower.
        prefixes: what precedes its keys, in every layout.
    """
    weights = FolderWeights.open(folder)
    named = {}
    for prefix in prefixes:
        part = find_part(weights.tensors, (prefix,))
        if part is not None:
            named.update({key: part.prefix_for(model_type) + part.name(key) for key in part.keys})
    for file in sorted({weights.tensors[key].file for key, name in named.items() if key != name}):
        stored = {named.get(key, key): tensor for key, tensor in weights.of_file(file).items()}
        with atomic_write(file) as part_file:
            write_file(part_file, stored, weights.metadata[file])
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        index["weight_map"] = {named.get(key, key): file for key, file in index["weight_map"].items()}
        write_json(folder / INDEX, index)


def write_replaced(
    host: FolderWeights,
    out: Path,
    replaced: Mapping[str, str],
    new: Mapping[str, Mapping[str, Stored | torch.Tensor]],
    link: bool = True,
) -> dict[str, str]:
    """Write the weights of `host` into `out` with some parts exchanged; the other tensors are passed on as they are.

    Files without a key that goes are linked (copied where the file system cannot link); the others are put together
    anew from byte ranges, so that no more than one tensor in memory is ever held.

    Args:
        host: the weights of the host.
        out: an existing folder without weights.
        replaced: each key that goes, and the part it belongs to.
        new: for each part its new tensors by full key, in memory or as they lie in another file; they go into the file
            that held the part's first key.
        link: False copies where a hard link would do.

    Returns:
        For each file of the host: `linked`, `copied`, `rewritten` or `dropped` (when nothing is left in it).
    """
    written, total, target, done = {}, 0, {}, {}
    for key, part in replaced.items():
        target.setdefault(part, host.tensors[key].file)
    files = list(host.metadata)
    for file in tqdm(files, desc="writing weights", unit="file", disable=len(files) < 3):
        stored = host.of_file(file)
        kept = {key: tensor for key, tensor in stored.items() if key not in replaced}
        fresh = {key: value for part, values in new.items() if target[part] == file for key, value in values.items()}
        if len(kept) == len(stored):
            done[file.name] = _pass_on(file, out / file.name, link)
            total += sum(tensor.nbytes for tensor in kept.values())
        elif kept or fresh:
            total += write_file(out / file.name, {**kept, **fresh}, host.metadata[file] or {"format": "pt"})
            done[file.name] = "rewritten"
        else:
            done[file.name] = "dropped"
        written.update(dict.fromkeys([*kept, *fresh], file.name))
    if (host.folder / INDEX).is_file():
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(written.items()))})
    return done


def _pass_on(file: Path, to: Path, link: bool) -> str:
    if link:
        try:
            os.link(file.resolve(), to)
            return "linked"
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(file, to)
    return "copied"
