"""Safetensors files by byte ranges: what lies where, and a new file put together from ranges, never loaded.

Layout: 8 bytes (little endian) length of the header, the header as JSON (key -> dtype, shape, [begin, end) from the end
of the header; `__metadata__`), the tensors' bytes without holes (https://github.com/huggingface/safetensors, format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cloc.files import parse_object

CHUNK = 16 * 2**20
"""Bytes that are in memory at a time."""
LONGEST_HEADER = 25_000_000
"""Bytes; a tensor takes about a hundred. The library itself refuses four times as many."""
MOST_DIMENSIONS = 64
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of the types that towers and projectors have."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as it lies in a file.

    Attributes:
        key: its name in the file.
        file: where.
        dtype: as the format names it, `BF16`.
        shape: of the tensor.
        begin, end: its bytes, counted from the start of the file.
    """

    key: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.end - self.begin


def read_header(file: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Every tensor of a safetensors file, and what the file says about itself, as `{"format": "pt"}`.

    Raises:
        ValueError: the file is cut short, or is no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise ValueError(_broken(file, f"a header of {length} bytes in a file of {size}"))
        header = opened.read(length)
    try:
        content = parse_object(header, "header")
    except ValueError as error:
        raise ValueError(_broken(file, f"its header cannot be read: {error}")) from error
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(_broken(file, "__metadata__ is no table of texts"))
    found = {key: _stored(file, key, entry, 8 + length) for key, entry in content.items()}
    at = 8 + length
    for key, tensor in sorted(found.items(), key=lambda one: (one[1].begin, one[1].end)):
        if tensor.begin != at or tensor.end > size:
            raise ValueError(
                _broken(file, f"tensor {key:.200} takes bytes {tensor.begin} to {tensor.end} of {size}, expected {at}")
            )
        at = tensor.end
    if at != size:
        raise ValueError(_broken(file, f"its tensors end at byte {at} of {size}"))
    return found, metadata


def _stored(file: Path, key: str, entry: Any, start: int) -> Stored:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_broken(file, f"tensor {key:.200} has no dtype, shape and data_offsets")) from error
    whole = isinstance(dtype, str) and isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS
    if not whole or not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or end < begin:
        raise ValueError(_broken(file, f"tensor {key:.200} has dtype, shape or data_offsets of another kind"))
    bits = BITS.get(dtype)
    if bits is not None and (end - begin) * 8 != math.prod(shape) * bits:
        raise ValueError(_broken(file, f"tensor {key:.200} has {end - begin} bytes for shape {shape!r:.80} of {dtype}"))
    return Stored(key, file, dtype, tuple(shape), start + begin, start + end)


def _broken(file: Path, why: str) -> str:
    return f"{file} cannot be read as safetensors ({why}); is it complete?"


def write_file(file: Path, tensors: Mapping[str, Stored | torch.Tensor], metadata: Mapping[str, str]) -> int:
    """Write a safetensors file from ranges of other files and from tensors in memory.

    Args:
        file: to write, must not exist.
        tensors: each tensor, where it lies or in memory.
        metadata: what the file says about itself.

    Returns:
        Bytes of all tensors.

    Raises:
        ValueError: a source file ends too early.
    """
    # Widest types first, as the library does it: every tensor then starts at a multiple of its own width.
    order = sorted(tensors, key=lambda key: -BITS.get(_dtype(tensors[key]), 8))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for key in order:
        size = tensors[key].nbytes
        header[key] = {
            "dtype": _dtype(tensors[key]),
            "shape": list(tensors[key].shape),
            "data_offsets": [at, at + size],
        }
        at += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("xb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for key in order:
            value = tensors[key]
            if isinstance(value, Stored):
                for chunk in read_chunks(value):
                    out.write(chunk)
            else:
                flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                out.write(flat.numpy().data)
    return at


def _dtype(value: Stored | torch.Tensor) -> str:
    return value.dtype if isinstance(value, Stored) else NAMES[value.dtype]


def read_chunks(tensor: Stored) -> Iterator[bytes]:
    """A stored tensor's bytes, at most `CHUNK` at a time.

    Raises:
        ValueError: the file ends too early.
    """
    with tensor.file.open("rb") as source:
        source.seek(tensor.begin)
        left = tensor.nbytes
        while left:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise ValueError(_broken(tensor.file, "it ends too early"))
            yield chunk
            left -= len(chunk)


def have_same_bytes(one: Stored, other: Stored) -> bool:
    """Whether two stored tensors are equal in type, shape and every byte; read side by side and never held.

    Raises:
        ValueError: a file ends too early.
    """
    if (one.dtype, one.shape, one.nbytes) != (other.dtype, other.shape, other.nbytes):
        return False
    return all(a == b for a, b in zip(read_chunks(one), read_chunks(other), strict=True))
