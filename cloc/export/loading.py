"""Around every `from_pretrained` that a user's folder goes into: what cannot be read is a mistake with a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloc.model_folders import UNREADABLE, refusing_code


@contextmanager
def weights_of(source: Path | str) -> Iterator[None]:
    """Say in one line which model cannot be read where its files are missing, cut short or not what they should be.

    Args:
        source: the folder or hub name that is loaded inside.

    Raises:
        ValueError: config, weights or processor of `source` cannot be read, or it wants to run code of its own.
    """
    try:
        with refusing_code(source):
            yield
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(
            f"{source}: weights or processor cannot be read ({reason}); copy the whole folder again, or name another "
            "model"
        ) from error
