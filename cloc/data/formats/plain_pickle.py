"""Reading a pickle that may hold plain containers only. The refer toolkit publishes its expressions as a pickle."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn


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
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin-1").load()
    except (pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected {what}, a pickle of plain lists and dicts; refused: {error}. "
            "Nothing in it was run; download it again from its publisher"
        ) from error
