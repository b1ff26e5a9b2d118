"""Where models lie: folder or hub name in, local folder out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

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


def copy_small_files(folder: Path, out: Path, endings: tuple[str, ...], without: Collection[str] = ()) -> None:
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
