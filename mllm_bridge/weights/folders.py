"""Where models lie: folder or hub name in, local folder out; and result folders that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from cloc.disk import open_to_umask
from cloc.files import read_object
from cloc.model_folders import refuse_links

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
LEGAL = ("LICENSE", "LICENCE", "NOTICE")
"""How the names of files begin that go along into every result."""
LARGEST_PASSED_ON = 1 << 29
"""Bytes; the largest tokenizers have a tenth of it."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*"]


def locate(name: str | Path, what: str) -> Path:
    """A local folder for a folder or hub name; a folder that exists is never looked up on the hub.

    Args:
        name: folder, or hub name as `owner/model`.
        what: `host` or `encoder`, for messages.

    Raises:
        ValueError: the folder holds no config.json, or there is neither such a folder nor such a hub name.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            if what == "host":
                refuse_links(folder, what)
            return folder
        raise ValueError(_no_config(folder, what))
    if not HUB_NAME.fullmatch(str(name)):
        raise ValueError(
            f"{what}: there is no folder {name}; pass a folder with a config.json or a hub name owner/model"
        )
    try:
        found = Path(snapshot_download(str(name), allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{what}: there is no folder {name}, and the hub gave no model of that name ({type(error).__name__}); "
            "pass the path of a folder with a config.json"
        ) from error
    if not (found / "config.json").is_file():
        raise ValueError(_no_config(found, what))
    return found


def pass_on(folder: Path, out: Path, endings: tuple[str, ...], without: Collection[str] = ()) -> None:
    """Copy a model's small files (tokenizer, templates, licences) as they are.

    Args:
        folder: the model's.
        out: where they go.
        endings: of the files' names; files whose name begins as one of `LEGAL` go along always.
        without: names that stay.

    Raises:
        ValueError: one is larger than any such file is.
    """
    for path in sorted(folder.iterdir()):
        wanted = path.suffix in endings or path.name.upper().startswith(LEGAL)
        if not path.is_file() or not wanted or path.name in without:
            continue
        size = path.stat().st_size
        if size > LARGEST_PASSED_ON:
            raise ValueError(
                f"{path}: {size:,} bytes, and files of its kind go into the result as they are, up to "
                f"{LARGEST_PASSED_ON:,}; move it out of the folder"
            )
        shutil.copyfile(path, out / path.name)


def _no_config(folder: Path, what: str) -> str:
    held = sorted(path.name for path in folder.iterdir())
    holds = ", ".join(held[:8]) + (", ..." if len(held) > 8 else "") if held else "nothing"
    if (folder / "adapter_config.json").is_file():
        hint = "these are adapters: merge them into their base (peft's merge_and_unload) and pass what that saves"
    elif (folder / "export" / "config.json").is_file():
        hint = f"this is a run, its export lies in {folder / 'export'}: pass that"
    elif what == "encoder":
        hint = "pass a finished export (runs/NAME/export), a CLIP or SigLIP folder, or `cloc` for the newest export"
    else:
        hint = "pass a folder written by save_pretrained"
    return f"{what}: {folder} holds no config.json (it holds: {holds}); {hint}"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file is no JSON object.
    """
    return read_object(path, "a JSON object", "is the file complete?")


def require_free(out: Path, *sources: Path) -> None:
    """Nothing is ever overwritten, and nothing is written into what is read.

    Raises:
        ValueError: `out` exists and is not an empty folder, lies below a file, or in one of `sources`.
    """
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{out} lies in {source}, which is read; pass another --out")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{out} cannot be made: {above} is a file; pass another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; nothing is overwritten: pass another --out, or remove it")


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to write into, which takes the name `out` at the end, and vanishes if anything goes wrong before.

    What a killed process of this machine has left for the same `out` goes too.

    Raises:
        ValueError: `out` exists and is not an empty folder, or became one meanwhile.
    """
    require_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{out.name}.unfinished-{socket.gethostname()}-"
    for left in out.parent.glob(f"{glob.escape(stem)}*"):
        owner = left.name.removeprefix(stem)
        if owner.isdecimal() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    unfinished = out.parent / f"{stem}{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        open_to_umask(unfinished)
        try:
            os.replace(unfinished, out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise ValueError(f"{out} appeared meanwhile, written by another process; pass another --out") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
