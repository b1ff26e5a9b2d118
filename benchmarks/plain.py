"""Modules of the kit that need no torch, without the kit's public names, which load it: scoring a file takes a second.

What is found this way is the same source as the converters use, so that both judge a file alike.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

KIT = Path(__file__).resolve().parents[1] / "cloc"


@lru_cache
def plain(name: str) -> ModuleType:
    """A module of the kit, such as `boxes` for `cloc.boxes`: from its file alone where the kit is not loaded anyway.

    Args:
        name: below `cloc`; the module itself imports nothing of `cloc` that loads torch.
    """
    if "cloc" in sys.modules:
        return importlib.import_module(f"cloc.{name}")
    alone = f"benchmarks.plain_{name.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(alone, KIT / f"{name.replace('.', '/')}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alone] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
