"""What every load from a model's folder keeps to: no code in it is run, and what cannot be read has a name.

Every call that loads something says `trust_remote_code=False` (a test finds one that does not). For the calls that
transformers makes inside itself without that argument, `cloc.registration` sets the time that it waits for an answer to
zero, which is its own way of never asking. A program that passes `trust_remote_code=True` by itself is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from cloc.files import read_object
from cloc.model_bounds import check_sizes

UNREADABLE = (
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ImportError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)
"""What the libraries raise, beside ValueError, on files of a model that are missing, cut, tampered or of another kind.

A `RecursionError` is a `RuntimeError`, an `OverflowError` an `ArithmeticError`. To be caught around the library's own
loading call alone, where nothing else of ours runs.
"""


def in_one_line(error: Exception) -> str:
    """What a library said, which may take several lines for it, or nothing but its kind."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def refusing_code(source: Path | str) -> Iterator[None]:
    """Say in one line that a model wants to run code of its own, or what else the library tells in several. Sizes in
    the folder's config are looked at first, since nothing bounds what the library makes of them.

    Args:
        source: the folder or hub name that is loaded inside.

    Raises:
        ValueError: it can only be loaded with code that lies in it, or is not what the library expects.
    """
    config = Path(source) / "config.json"
    if config.is_file():
        check_sizes(read_object(config, "a model's config"), str(source))
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            if len(lines) < 2:
                raise
            raise ValueError(f"{source}: {lines[0]} {lines[1]}") from error
        raise ValueError(
            f"{source}: can only be loaded by running code that lies in it (auto_map in its files), and this kit runs "
            "no code from a model's folder; name a model whose architecture is part of transformers"
        ) from error


def refuse_links(folder: Path, what: str) -> None:
    """Refuse a folder whose links lead out of it: what they point to would be copied into a folder to be published.

    The links of the hub's cache (snapshots/REVISION/file -> blobs/HASH of the same repository) are its files.

    Raises:
        ValueError: a link leads elsewhere, in a circle, or to nothing.
    """
    real = folder.resolve()
    blobs = real.parents[1] / "blobs" if real.parent.name == "snapshots" else None
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            continue
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{what}: {path} is a link that leads nowhere ({error}); copy the whole folder") from error
        if not target.is_relative_to(real) and not (target.parent == blobs and target.is_file()):
            raise ValueError(
                f"{what}: {path} is a link to {target}, outside its folder, and would be copied from there into the "
                f"result; if that is wanted, copy the folder with what its links mean: cp -rL {folder} NEW"
            )


def refusing_unreadable(source: Path | str) -> AbstractContextManager[None]:
    """Say in one line which model cannot be read where its files are missing, cut short or not what they should be.

    Args:
        source: the folder or hub name that is loaded inside.

    Raises:
        ValueError: config, weights or processor of `source` cannot be read, or it wants to run code of its own.
    """
    return _RefusingUnreadable(source)


class _RefusingUnreadable(AbstractContextManager[None]):
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
