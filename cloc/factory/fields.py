"""Fields that a section of the config and a part's own settings both have: what is added to both goes from one to the
other by its name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel


def shared_fields(section: BaseModel, kind: type, prefix: str = "") -> dict[str, Any]:
    """The values of a section under the names that a dataclass has too; a tuple becomes a list, as JSON has it.

    Args:
        section: of the run's config.
        kind: the dataclass that is to be made.
        prefix: before the names there, as in `prompter_pool` for `pool`.
    """
    names = {field.name for field in fields(kind)}
    values = {prefix + name: getattr(section, name) for name in type(section).model_fields if prefix + name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
