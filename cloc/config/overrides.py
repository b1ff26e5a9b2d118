"""`a.b=c` on the command line."""

from __future__ import annotations

from typing import Any

from cloc.files import parse_yaml


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Change one field of plain data in place, by its dotted name; positions in lists are numbers.

    Raises:
        ValueError: the override is malformed, or leads through a value that holds no fields.
    """
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ValueError(f"override {override!r}: expected KEY=VALUE, such as loss.regions_per_image=2")
    *parents, last = name.split(".")
    place: Any = raw
    for part in parents:
        if isinstance(place, list):
            place = place[_position(place, part, override)]
        elif isinstance(place, dict):
            if not isinstance(place.get(part), (dict, list)):
                place[part] = {}
            place = place[part]
        else:
            raise ValueError(f"override {override!r}: expected fields at {part!r}, got {place!r}")
    parsed = parse_yaml(value, f"override {override!r}") if value else None
    if isinstance(place, list):
        place[_position(place, last, override)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise ValueError(f"override {override!r}: expected fields at {last!r}, got {place!r}")


def _position(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ValueError(f"override {override!r}: expected a position from 0 to {len(items) - 1}, got {part!r}")
    return int(part)
