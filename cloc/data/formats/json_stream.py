"""A JSON file of any size, one entry at a time: the lists of its top level are never held whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

_CHUNK = 1 << 20
_LARGEST = 1 << 28
"""Characters of one entry; a file with a longer one is taken for broken rather than read into memory."""

_BLANK = " \t\r\n"
_skip = re.compile(f"[{_BLANK}]*").match
_BEHIND = frozenset(_BLANK + ",:]}")


def stream_json(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """The entries of the lists at the top level of a JSON file, in its order, each decoded when it is asked for.

    `{"info": {...}, "images": [a, b]}` gives ("info", {...}), ("images", a), ("images", b); `[a, b]` gives ("", a),
    ("", b). An empty list gives nothing. The same values come as from `json.load`.

    Args:
        path: the file, UTF-8.
        what: what it should be, for messages.

    Raises:
        ValueError: there is no such file, it is no JSON or no UTF-8, or it ends in the middle.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected {what}, found no file; check the path or the data root")
    with path.open("rb") as file:
        yield from _Stream(file, path, what).entries()


class _Stream:
    """A window of the text that moves forward, and the place in it."""

    def __init__(self, file: BinaryIO, path: Path, what: str) -> None:
        self._file, self._path, self._what = file, path, what
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._ended = "", 0, False

    def entries(self) -> Iterator[tuple[str, Any]]:
        opening = self._next()
        if opening == "[":
            self._at += 1
            yield from self._list("")
        elif opening == "{":
            self._at += 1
            yield from self._object()
        else:
            self._fail(f"it begins with {opening!r}")
        if self._next():
            self._fail("there is more behind its end")

    def _object(self) -> Iterator[tuple[str, Any]]:
        if self._next() == "}":
            self._at += 1
            return
        while True:
            name = self._value() if self._next() == '"' else self._fail("a name is missing")
            self._expect(":")
            if self._next() == "[":
                self._at += 1
                yield from self._list(name)
            else:
                yield name, self._value()
            if self._expect(",}") == "}":
                return

    def _list(self, name: str) -> Iterator[tuple[str, Any]]:
        if self._next() == "]":
            self._at += 1
            return
        while True:
            yield name, self._value()
            if self._expect(",]") == "]":
                return

    def _next(self) -> str:
        """The next letter that is no blank, empty at the end; the place stays before it."""
        while True:
            self._at = _skip(self._text, self._at).end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _expect(self, letters: str) -> str:
        letter = self._next()
        if not letter:
            self._fail("it ends in the middle")
        if letter not in letters:
            self._fail(f"expected one of {' '.join(letters)}, got {letter!r}")
        self._at += 1
        return letter

    def _value(self) -> Any:
        """Decode at the place; where the window ends too early, with twice as much of it."""
        self._next()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._at > _LARGEST:
                    self._fail(f"an entry cannot be read: {error}")
                if not self._more():
                    self._fail(f"it ends in the middle, or an entry cannot be read: {error}")
                continue
            # a number may go on behind the window, and `1.` at its edge is read as 1
            if self._text[end : end + 1] in _BEHIND or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Read on, at least as much as is pending; False at the end of the file."""
        if self._ended:
            return False
        data = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not data
        try:
            self._text = self._text[self._at :] + self._decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            self._fail(f"expected UTF-8: {error.reason} near byte {self._file.tell()}")
        self._at = 0
        return not self._ended

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(
            f"{self._path}: expected {self._what}, got a file that is no JSON ({why}); download it again"
        ) from None
