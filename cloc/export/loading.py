"""Around every `from_pretrained` that a user's folder goes into: what cannot be read is a mistake with a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def weights_of(source: Path | str) -> Iterator[None]:
    """Say which model cannot be read where its weights or its processor are missing or cut short.

    Args:
        source: the folder or hub name that is loaded inside.

    Raises:
        ValueError: the weights or the processor of `source` cannot be read.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{source}: weights or processor cannot be read ({reason}); copy the whole folder again, or name another "
            "model"
        ) from error
