"""Names as they were before the parts of the kit got their places: they go on for this version, with a warning.

`moved.json` holds, by old module, where it lies now, and where its names went that have another name or module.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

Table = dict[str, tuple[str, dict[str, str]]]


@lru_cache(maxsize=1)
def read_table() -> Table:
    """By old module: its new one, and the full new names of what is called otherwise or lies elsewhere."""
    from cloc.files import read_object

    return {
        old: (home, names)
        for old, (home, names) in read_object(Path(__file__).with_name("moved.json"), "names").items()
    }


def find_moved(module: str, name: str) -> Any:
    """What a module of an earlier layout had under a name.

    Raises:
        AttributeError: it had no such name.
    """
    entry = None if name.startswith("__") else read_table().get(module)
    if entry is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, renamed = entry
    where, _, now = renamed.get(name, f"{home}.{name}").rpartition(".")
    if (where, now) == (module, name):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    found = getattr(import_module(where), now)
    warnings.warn(f"{module}.{name} is {where}.{now} now; the old name goes with the next version", FutureWarning, 3)
    return found


def add_old_names(module: ModuleType) -> None:
    """Let a module that is there still answer to the names that it had."""
    if "__getattr__" not in vars(module):
        module.__getattr__ = partial(find_moved, module.__name__)  # type: ignore[method-assign]


class MovedFinder(MetaPathFinder, Loader):
    """Finds modules that are gone, where nobody else does: empty ones that answer to their old names."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """None for every module but those of an earlier layout."""
        if not name.startswith(("cloc.", "mllm_bridge.")) or name not in read_table():
            return None
        return ModuleSpec(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""
        add_old_names(module)
