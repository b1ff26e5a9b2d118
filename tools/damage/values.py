"""What a damaged file holds: one place of a JSON value replaced by something hostile, or its bytes hurt."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Path = tuple[Any, ...]
RAW = "\0raw:"
"""Begins a text that is written as it is, for what `json` would not write: huge numbers, depth, half surrogates."""
NUMBERS = [
    0,
    1,
    -1,
    0.5,
    -0.0,
    1e-320,
    1e308,
    255,
    2**31,
    2**53,
    2**63,
    -(2**63) - 1,
    10**30,
    float("nan"),
    float("inf"),
]
TEXTS = [
    "", " ", "x", "0", "1", "-1", "12.5", "true", "None", "NaN", "../../../etc/passwd", "/etc/passwd", "a/../b",
    "a\\b.jpg", "C:\\a.jpg", "nul\0byte", "line\nbreak\r", "\x1b[31mred\x1b[0m", "\u202eright to left",
    "\ufeff", "\ufffd", "\U0001f600" * 3, "e\u0301", "<script>alert(1)</script>", "${HOME}", "{0}", "%s%n", "~",
    "." * 300, "a" * 70_000, "<image>" * 50, "<region>", "http://127.0.0.1:9/x.jpg", "file:///etc/passwd", "con",
    "-rf", "*", "|true",
]  # fmt: skip
WRITTEN = [
    "1e400", "-1e400", "1" * 5000, "-" + "9" * 30, "0." + "1" * 3000, "[" * 3000 + "]" * 3000,
    '{"a":' * 400 + "1" + "}" * 400, '"\\ud83d"', '"a\\udc00b"', '"\\u0000"', "[" * 20_000,
]  # fmt: skip


def hostile(random: Random) -> Any:
    """A value that does not belong where it is put."""
    kind = random.randrange(7)
    if kind == 0:
        return random.choice([None, True, False, [], {}, [[]], [None], {"": None}, [{}]])
    if kind == 1:
        return random.choice(NUMBERS)
    if kind == 2:
        return RAW + random.choice(WRITTEN)
    if kind == 3:
        return [random.choice(NUMBERS) for _ in range(random.choice([1, 2, 3, 4, 4, 4, 5, 64]))]
    if kind == 4:
        return {random.choice(["id", "name", "bbox", "x", ""]): random.choice([*NUMBERS, *TEXTS])}
    return random.choice(TEXTS)


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every value inside another."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(value: Any, random: Random) -> Any:
    """A copy with one or a few places changed, left out, doubled, or turned into their text."""
    made = {"": copy.deepcopy(value)}
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        found = [("",), *places(made[""], ("",))]
        path = random.choice(found if random.random() < 0.2 else found[1:] or found)
        parent: Any = made
        for part in path[:-1]:
            parent = parent[part]
        _change(parent, path[-1], random)
    return made[""]


def _change(parent: Any, key: Any, random: Random) -> None:
    before, way = parent[key], random.random()
    if way < 0.15 and key != "":
        del parent[key]
    elif way < 0.2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(before))
    elif way < 0.25:
        parent[key] = str(before)
    elif way < 0.3:
        parent[key] = [before]
    elif way < 0.4 and isinstance(before, (int, float)):
        parent[key] = random.choice([-before, before * 1000, before / 1000, float(before), str(before), before + 1e9])
    elif way < 0.45 and isinstance(parent, dict):
        parent[random.choice(["schema", "id", "", "__class__", "version"])] = hostile(random)
    else:
        parent[key] = hostile(random)


def written(value: Any) -> str:
    """JSON text of a damaged value, with what stands behind `RAW` as it is."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(inner) for inner in value) + "]"
    if isinstance(value, str) and value.startswith(RAW):
        return value.removeprefix(RAW)
    return json.dumps(value)


def hurt(data: bytes, random: Random) -> bytes:
    """Bytes that were cut, flipped, overwritten, doubled, or are another file altogether."""
    way = random.randrange(10)
    at = random.randrange(len(data) + 1)
    ways: list[Callable[[], bytes]] = [
        lambda: data[:at],
        lambda: data[at:],
        lambda: data[:at] + random.randbytes(random.choice([1, 4, 200])) + data[at:],
        lambda: data[:at] + bytes(random.choice([1, 8, 512])) + data[at + 8 :],
        lambda: data + random.choice([data, b"\0" * 700, random.randbytes(300)]),
        lambda: random.choice(
            [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf" + data, b"PK\x03\x04", b"\x1f\x8b\x08", b"<html>404"]
        ),
        lambda: data.replace(
            random.choice([b'"', b",", b":", b"0", b"1", b"\n"]), random.choice([b"", b"9" * 20, b"\0", b"'"])
        ),
    ]
    if way < len(ways):
        return ways[way]()
    changed = bytearray(data)
    for _ in range(random.choice([1, 2, 8, 64])):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def document(value: Any, random: Random, whole: float = 0.25) -> bytes:
    """A JSON file of a value: damaged in its structure, or (share `whole`) in its bytes."""
    if random.random() < whole:
        return hurt(json.dumps(value).encode(), random)
    return written(damaged(value, random)).encode("utf-8", "surrogatepass")


def lines(values: list[Any], random: Random) -> bytes:
    """JSON lines of values, one of which is damaged."""
    texts = [json.dumps(value).encode() for value in values]
    at = random.randrange(len(texts))
    texts[at] = document(values[at], random).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"\n".join(texts) + b"\n"
