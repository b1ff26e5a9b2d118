"""Around every `from_pretrained` that a user's folder goes into: what cannot be read is a mistake with a name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from cloc.model_folders import UNREADABLE, refusing_code


def weights_of(source: Path | str) -> AbstractContextManager[None]:
    """Say in one line which model cannot be read where its files are missing, cut short or not what they should be.

    Args:
        source: the folder or hub name that is loaded inside.

    Raises:
        ValueError: config, weights or processor of `source` cannot be read, or it wants to run code of its own.
    """
    return _Readable(source)


class _Readable(AbstractContextManager[None]):
    def __init__(self, source: Path | str) -> None:
        self.source, self.refusing = source, refusing_code(source)

    def __enter__(self) -> None:
        self.refusing.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refusing.__exit__(kind, error, trace)
        # `tokenizers` raises a bare `Exception`, which no `except` could name without all others
        if kind is not None and (kind is Exception or issubclass(kind, UNREADABLE)):
            reason = (str(error) or kind.__name__).strip().splitlines()[0]
            raise ValueError(
                f"{self.source}: weights or processor cannot be read ({reason}); copy the whole folder again, or name "
                "another model"
            ) from error
