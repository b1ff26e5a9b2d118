"""Numbers as annotation files write them: as numbers, or as texts that say one (VIA, pylabel and others export these).

One rule for every reader: a clean text is its number, a truth value is none, and what is no number is None, so that the
caller can count it.
"""

from __future__ import annotations

import math
import re

_LARGEST = 1 << 63
_DIGITS = re.compile(r"[+-]?\d{1,20}(?:\.0*)?", re.ASCII).fullmatch
_DECIMAL = re.compile(r"[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][+-]?\d{1,3})?", re.ASCII).fullmatch
_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def parse_whole(value: object) -> int | None:
    """The whole number of 64 bits that a value says (`7`, `7.0`, `"7"`), None where it says none.

    True and False are none: a file that gives them for an id means something else.
    """
    if type(value) is int:  # nearly always, so it is asked first
        return value if -_LARGEST <= value < _LARGEST else None
    if isinstance(value, float) and value.is_integer() and abs(value) <= 1 << 53:  # exact up to there
        return int(value)
    if isinstance(value, str) and _DIGITS(value := value.strip()):
        number = int(value.partition(".")[0])
        return number if -_LARGEST <= number < _LARGEST else None
    return None


def parse_real(value: object) -> float | None:
    """The finite number that a value says (`0.5`, `"0.5"`), None where it says none."""
    kind = type(value)
    if kind is float or kind is int:
        return float(value) if abs(value) < math.inf and abs(value) < 1e300 else None  # huge integers fit in no float
    if isinstance(value, str) and _DECIMAL(value := value.strip()):
        number = float(value)
        return number if abs(number) < math.inf else None
    return None


def parse_four(box: object) -> tuple[float, float, float, float] | None:
    """Four finite or infinite numbers of a box, None where it has no four; texts that say a number are read as it."""
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return None
    if {*map(type, box)} <= _PLAIN:
        try:
            return float(box[0]), float(box[1]), float(box[2]), float(box[3])
        except OverflowError:  # an integer beyond the range of floats
            return math.inf, math.inf, math.inf, math.inf
    numbers = tuple(value if type(value) is float else parse_real(value) for value in box)
    return None if None in numbers else numbers  # type: ignore[return-value]


_PLAIN = {int, float}


def parse_flag(value: object) -> bool:
    """Whether a flag such as `iscrowd` is set: `0`, `"0"`, `"false"`, None and what is no flag at all are not."""
    if type(value) is int:
        return value != 0
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower(), bool(parse_real(value)))
    return bool(value) if isinstance(value, (bool, float)) else False


def parse_numbers(values: list[object]) -> list[object]:
    """The same list with texts that say a number as numbers; numbers stay as the file writes them (7 is no 7.0)."""
    return [parse_real(value) if isinstance(value, str) else value for value in values]
