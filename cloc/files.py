r"""Reading JSON and YAML that somebody else wrote: the one place in the repository that does.

Every function here raises `ValueError` in one line (what was expected, what came, in which file) for whatever the
bytes are; no other error comes out. The rules:

- Text is UTF-8, with or without a byte order mark (a whole JSON file may be UTF-16 or 32 with one, as `json` has it).
- Nesting is at most `DEEPEST` levels, a file at most as long as its caller says.
- An integer that does not fit into 64 bits is read as a float, as JavaScript does, and beyond the range of floats as
  infinity: so no `OverflowError` waits behind it, and whoever asks for a whole number refuses it by its type.
- NaN, Infinity and -Infinity are read as floats, as `json` does; who needs finite numbers asks for them.
- A name that stands twice in one object means its last value, as `json` has it.
- Half of a surrogate pair (an emoji cut in two by `\ud83d`) is no text: such a document is refused, or, on request,
  the half becomes U+FFFD.
- YAML is read with the safe loader under the same rule for integers; its aliases
  may write out at most `MOST_NODES` nodes in all.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 100
"""Levels of lists and objects in one another."""
LARGEST = 1 << 30
"""Bytes of a JSON file unless the caller says otherwise; what may be larger is streamed."""
LARGEST_OBJECT = 1 << 28
"""Bytes of a card, a state or another file of ours, and of one line of JSON lines."""
LARGEST_YAML = 1 << 20
"""Bytes of a YAML text."""
MOST_NODES = 100_000
"""Values in a YAML text, aliases written out."""

_WALKED = 1 << 22
"""Characters up to which the depth is measured; in a longer document the interpreter's own limit stands."""
_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(  # as it stands in a text of JSON: an upper half without its lower one, or the reverse
    r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
)


def _integer(digits: str) -> int | float:
    if len(digits) < 19:
        return int(digits)
    value = float(digits)  # infinity beyond the range of floats
    exact = int(digits) if len(digits) < 21 else 1 << 64
    return exact if -(1 << 63) <= exact < 1 << 63 else value


DECODER = json.JSONDecoder(parse_int=_integer)
"""For readers that take a document apart by themselves, with `raw_decode`; `parse_json` is the rule for all others."""


def is_text(value: object) -> bool:
    """Whether a value is a string without half a surrogate pair, which JSON lets through and no tokenizer takes."""
    return isinstance(value, str) and (value.isascii() or not _HALF.search(value))


def parse_json(data: bytes | bytearray | str, what: str, replace_halves: bool = False) -> Any:
    """The value that a JSON text says.

    Args:
        data: the whole text.
        what: where it comes from and what it should be, for messages: begins the sentence.
        replace_halves: half surrogate pairs become U+FFFD instead of an error.

    Raises:
        ValueError: it is no JSON, no UTF-8, nested too deep, or (without `replace_halves`) holds half a surrogate pair.
    """
    try:
        return _decoded(data, replace_halves)
    except ValueError as error:
        raise ValueError(f"{what}: expected JSON, got {error}") from None


def parse_object(data: bytes | bytearray | str, what: str) -> dict[str, Any]:
    """The object that a JSON text says; see `parse_json`.

    Raises:
        ValueError: as `parse_json`, and where it is another value than an object.
    """
    value = parse_json(data, what)
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object, got a {_kind(value)}")
    return value


def read_bytes(path: Path, what: str, largest: int = LARGEST) -> bytes:
    """The content of a file of bounded size.

    Raises:
        ValueError: there is no such file, or it is larger.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected {what}, found no file; check the path")
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{path}: expected {what} of at most {largest:,} bytes, got {size:,}")
    return path.read_bytes()


def read_json(
    path: Path, what: str = "a JSON file", hint: str = "", largest: int = LARGEST, replace_halves: bool = False
) -> Any:
    """The value in a JSON file.

    Args:
        path: the file.
        what: what it should be, for messages: "the card of a set".
        hint: what to do if it is something else, for messages: "make the set again".
        largest: bytes that are read at most.
        replace_halves: as in `parse_json`.

    Raises:
        ValueError: there is no such file, it is too large, or `parse_json` refuses it.
    """
    data = read_bytes(path, what, largest)
    try:
        return _decoded(data, replace_halves)
    except ValueError as error:
        raise ValueError(_hinted(f"{path}: expected {what}, got {error}", hint)) from None


def read_object(
    path: Path, what: str = "a JSON object", hint: str = "", largest: int = LARGEST_OBJECT
) -> dict[str, Any]:
    """The object in a JSON file; see `read_json`.

    Raises:
        ValueError: as `read_json`, and where it holds another value than an object.
    """
    value = read_json(path, what, hint, largest)
    if not isinstance(value, dict):
        raise ValueError(_hinted(f"{path}: expected {what}, got a JSON {_kind(value)} instead of an object", hint))
    return value


def read_json_lines(
    path: Path, what: str = "JSON lines", dropped: Counter[str] | None = None
) -> Iterator[tuple[int, Any]]:
    """(number of the line from 1, its value), one line at a time; memory does not grow with the file.

    Lines end with a line feed alone: other separators may stand inside a JSON text. Blank lines are passed over.

    Args:
        path: the file.
        what: what it should be, for messages.
        dropped: gets `bad_row` for each line that `parse_json` refuses; None: such a line is an error.

    Raises:
        ValueError: there is no such file, or a line is no JSON and nobody counts.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected {what}, found no file; check the path")
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LARGEST_OBJECT):
            number += 1
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.isspace() or not line:
                continue
            try:
                if len(line) == LARGEST_OBJECT:
                    _skip_line(file)
                    raise ValueError(f"one of over {LARGEST_OBJECT:,} bytes")
                value = _decoded(line)
            except ValueError as error:
                if dropped is None:
                    raise ValueError(f"{path}:{number}: expected a line of {what}, got {error}") from None
                dropped["bad_row"] += 1
                continue
            yield number, value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as readable JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """The safe loader, with the rule for integers."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int | float:  # type: ignore[override]
        """An integer of 64 bits, else a float."""
        value = super().construct_yaml_int(node)
        return value if -(1 << 63) <= value < 1 << 63 else float(value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str, what: str) -> Any:
    """The value that a YAML text says.

    Raises:
        ValueError: it is no YAML, a value is none of its kind, it is too long, nested too deep, or its aliases write
            out to more than `MOST_NODES` values (or into themselves).
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"{what}: expected YAML of at most {LARGEST_YAML:,} characters, got {len(text):,}")
    loader = None
    try:
        loader = _Loader(text)  # refuses control characters at once
        node = loader.get_single_node()
        if node is None:
            return None
        _bound_nodes(node, what)
        value = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(f"{what}: expected YAML; {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{what}: expected YAML, got nesting deeper than {DEEPEST} levels") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # `!!int x`, `!!bool x`, a 13th month and their like fail in the library with errors of many kinds
        if str(error).startswith(what):
            raise
        raise ValueError(f"{what}: expected YAML, got a value that is none of its kind ({error})") from None
    finally:
        if loader is not None:
            loader.dispose()
    return value


def read_yaml(path: Path, what: str = "YAML") -> Any:
    """The value in a YAML file; see `parse_yaml`.

    Raises:
        ValueError: there is no such file, it is no UTF-8, or `parse_yaml` refuses it.
    """
    data = read_bytes(path, what, LARGEST_YAML)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected {what}, got a file that is no UTF-8 text ({error}); name a .yaml") from None
    return parse_yaml(text, str(path))


def _decoded(data: bytes | bytearray | str, replace_halves: bool = False) -> Any:
    """The value of a JSON text; the error's text ends a sentence that begins with "expected ..., got"."""
    too_deep = f"lists in lists deeper than {DEEPEST} levels"
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        value = DECODER.decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError(too_deep) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ones
        raise ValueError(f"text that is no JSON ({error})") from None
    if len(text) <= _WALKED and text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise ValueError(too_deep)
    escaped = "\\u" in text and _HALF_ESCAPED.search(text)
    if (escaped or (isinstance(data, str) and _HALF.search(text))) and _has_half(value):
        if not replace_halves:
            raise ValueError("half of a surrogate pair (such as \\ud83d), which is no character")
        value = _replaced(value)
    return value


def _kind(value: Any) -> str:
    names = {list: "list", str: "text", bool: "truth value", int: "number", float: "number", dict: "object"}
    return names.get(type(value), "null")


def _hinted(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message


def _is_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(DEEPEST):
        inner = (below for one in layer for below in (one.values() if isinstance(one, dict) else one))
        layer = [below for below in inner if isinstance(below, (dict, list))]
        if not layer:
            return False
    return True


def _has_half(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and not is_text(one):
            return True
    return False


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_replaced(one) for one in value]
    if isinstance(value, dict):
        return {_replaced(name): _replaced(one) for name, one in value.items()}
    return value


def _skip_line(file: Any) -> None:
    while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _bound_nodes(node: yaml.Node, what: str) -> None:
    waiting, count = [(1, node)], 0
    while waiting:
        level, one = waiting.pop()
        count += 1
        if level > DEEPEST:
            raise ValueError(f"{what}: expected YAML, got nesting deeper than {DEEPEST} levels")
        if count > MOST_NODES:
            raise ValueError(f"{what}: expected YAML, got more than {MOST_NODES:,} values with its aliases written out")
        if isinstance(one, yaml.SequenceNode):
            waiting.extend((level + 1, below) for below in one.value)
        elif isinstance(one, yaml.MappingNode):
            waiting.extend((level + 1, below) for pair in one.value for below in pair)
