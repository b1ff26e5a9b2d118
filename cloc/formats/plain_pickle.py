"""Reading a pickle that may hold plain containers only. The refer toolkit publishes its expressions as a pickle."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

from cloc.files import read_bytes

_LARGEST = 1 << 29
"""Bytes; the published files have ten million."""
_PLAIN = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT NEWTRUE "
    "NEWFALSE STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "EMPTY_LIST APPEND APPENDS LIST EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 PUT BINPUT "
    "LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET".split()
)
"""Instructions that make lists, dicts, tuples, numbers and text, or move them."""
_PREFIXED = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Bytes of the length that stands before an argument."""
_ARGUMENTS = {
    ord(one.code): (one.name, 0 if one.arg is None else one.arg.n) for one in pickletools.opcodes if one.name in _PLAIN
}
_LOOKED_AT = {"STOP", "LONG_BINPUT"}
_ASKS = {ord(one.code) for one in pickletools.opcodes if one.name in ("GLOBAL", "STACK_GLOBAL")}
_STEPS = [
    1 + size if size >= 0 and name and name not in _LOOKED_AT else 0
    for name, size in (_ARGUMENTS.get(code, ("", 0)) for code in range(256))
]
"""How far an instruction of fixed length reaches, by its byte; 0 for one that has to be looked at."""


def _refuse_unbounded(data: bytes) -> None:
    """Look at every instruction without carrying it out.

    The library reserves memory by numbers in the file: four bytes of a place in its memo ask for 32 GB. Here no place
    is further than there are bytes, and no text longer than what is left of the file; so memory is bounded by its size.
    """
    at, end, steps = 0, len(data), _STEPS
    while at < end:
        step = steps[data[at]]
        if step:
            at += step
            continue
        name, size = _ARGUMENTS.get(data[at], ("", 0))
        if name == "STOP" or data[at] in _ASKS:  # the reader refuses what is asked for, and names it
            return
        if not name:
            code = next((one.name for one in pickletools.opcodes if ord(one.code) == data[at]), f"byte {data[at]}")
            raise pickle.UnpicklingError(f"it holds {code}, which makes no plain list, dict, number or text")
        at += 1
        if size == pickletools.UP_TO_NEWLINE:
            stop = data.find(b"\n", at)
            if stop < 0:
                break
            if name == "PUT" and not (stop - at < 10 and data[at:stop].isdigit() and int(data[at:stop]) <= end):
                raise pickle.UnpicklingError("it asks for a place beyond its own length")
            at = stop + 1
        elif name == "LONG_BINPUT":
            if int.from_bytes(data[at : at + size], "little") > end:
                raise pickle.UnpicklingError("it asks for a place beyond its own length")
            at += size
        else:
            width = _PREFIXED[size]
            length = int.from_bytes(data[at : at + width], "little")
            at += width + length
    raise pickle.UnpicklingError("it ends in the middle")


class _PlainUnpickler(pickle.Unpickler):
    """Admits lists, dicts, tuples, numbers and text. A pickle that asks for anything by name is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for an outside object {pid!r}")


def load_plain_pickle(path: Path, what: str) -> Any:
    """Load lists, dicts, numbers and text from a pickle; nothing in it is ever called.

    Args:
        path: the file; text written by Python 2 is read byte by byte (latin-1).
        what: what it should be, for messages.

    Raises:
        ValueError: the file holds anything else, or is no pickle.
    """
    data = read_bytes(path, what, _LARGEST)
    try:
        _refuse_unbounded(data)
        return _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:
        raise ValueError(
            f"{path}: expected {what}, a pickle of plain lists and dicts; refused: {error}. "
            "Nothing in it was run; download it again from its publisher"
        ) from error
