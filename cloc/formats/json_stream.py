"""A JSON file of any size, one entry at a time: the lists of its top level are never held whole."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from cloc.files import DECODER, DEEPEST, parse_json

_CHUNK = 1 << 20
_LARGEST = 1 << 28
"""Characters of one entry; a file with a longer one is taken for broken rather than read into memory."""

_BLANK = " \t\r\n"
_skip = re.compile(f"[{_BLANK}]*").match
_BEHIND = frozenset(_BLANK + ",:]}")
_bracket = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}"]', re.DOTALL).search
_BAD = object()
"""Stands for an entry that is JSON but cannot be used."""


def stream_json(path: Path, what: str, dropped: Counter[str] | None = None) -> Iterator[tuple[str, Any]]:
    """The entries of the lists at the top level of a JSON file, in its order, each decoded when it is asked for.

    `{"info": {...}, "images": [a, b]}` gives ("info", {...}), ("images", a), ("images", b); `[a, b]` gives ("", a),
    ("", b). An empty list gives nothing. The same values come as from `parse_json`, whose bounds hold for each entry.

    Args:
        path: the file, UTF-8.
        what: what it should be, for messages.
        dropped: gets bad_entry for each entry that is nested too deep or holds half a surrogate pair; None: such an
            entry is an error.

    Raises:
        ValueError: there is no such file, it is no JSON or no UTF-8, or it ends in the middle.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected {what}, found no file; check the path or the data root")
    with path.open("rb") as file:
        yield from _Stream(file, path, what, dropped).entries()


class _Stream:
    """A window of the text that moves forward, and the place in it."""

    def __init__(self, file: BinaryIO, path: Path, what: str, dropped: Counter[str] | None) -> None:
        self._file, self._path, self._what, self._dropped = file, path, what, dropped
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = DECODER.raw_decode
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
            name = name if isinstance(name, str) else "\ufffd"  # a name that is no text is nobody's
            self._expect(":")
            if self._next() == "[":
                self._at += 1
                yield from self._list(name)
            elif (value := self._value()) is not _BAD:
                yield name, value
            if self._expect(",}") == "}":
                return

    def _list(self, name: str) -> Iterator[tuple[str, Any]]:
        if self._next() == "]":
            self._at += 1
            return
        while True:
            value = self._value()
            if value is not _BAD:
                yield name, value
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
            except RecursionError:
                self._at = self._end_of_value()
                return self._count_bad()
            except ValueError as error:
                if len(self._text) - self._at > _LARGEST:
                    self._fail(f"an entry cannot be read: {error}")
                if not self._more():
                    self._fail(f"it ends in the middle, or an entry cannot be read: {error}")
                continue
            # a number may go on behind the window, and `1.` at its edge is read as 1
            if self._text[end : end + 1] in _BEHIND or not self._more():
                start, self._at = self._at, end
                return value if self._is_sound(start, end) else self._count_bad()

    def _is_sound(self, start: int, end: int) -> bool:
        """Whether an entry keeps the bounds of `parse_json`; few need a second look."""
        text = self._text
        plain = text.find("\\ud", start, end) < 0 and text.find("\\uD", start, end) < 0
        if plain and text.count("[", start, end) + text.count("{", start, end) <= DEEPEST:
            return True
        try:
            parse_json(text[start:end], str(self._path))
        except ValueError:
            return False
        return True

    def _count_bad(self) -> Any:
        if self._dropped is None:
            self._fail(f"an entry is nested deeper than {DEEPEST} levels, or holds half of a surrogate pair")
        self._dropped["bad_entry"] += 1
        return _BAD

    def _end_of_value(self) -> int:
        """Where the list or object at the place ends, told by its brackets alone."""
        at, depth = self._at, 0
        while True:
            found = _bracket(self._text, at)
            cut = found is None or found.group() == '"'  # a text that goes on behind the window
            if cut:
                before = self._at
                if len(self._text) - self._at > _LARGEST or not self._more():
                    self._fail("it ends in the middle of an entry that is nested too deep")
                at = (found.start() if found else at) - before
                continue
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found.group(), 0)
            at = found.end()
            if depth == 0:
                return at

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
