"""The forms in which a caption, a phrase and a category's name are compared and read by the text tower."""

from __future__ import annotations

import hashlib
import re

_SPACES = re.compile(r"\s+")
_APART = re.compile(r"[_/\s]+")


def canonical(text: str) -> str:
    """Lower-case, blanks collapsed: the form in which two phrases count as the same string."""
    return _SPACES.sub(" ", text).strip().lower()


def concept_name(text: str) -> str:
    """The form in which a category is read: lower-case, `_` and `/` as blanks; remarks in brackets stay, since LVIS
    tells a bow (weapon) from a bow (decorative ribbons) by nothing else.
    """
    return _APART.sub(" ", text).strip().lower()


def concept_sentence(name: str, definition: str = "") -> str:
    """What the text tower reads for a category, in training and testing alike: its name, and its definition if any."""
    definition = canonical(definition)
    return f"{concept_name(name)}, {definition}" if definition else concept_name(name)


def text_id(text: str) -> int:
    """A 63-bit number that is equal for equal canonical strings on every rank."""
    return int.from_bytes(hashlib.blake2b(canonical(text).encode(), digest_size=8).digest(), "big") >> 1
