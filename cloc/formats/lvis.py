"""LVIS's annotation files, v1 and v0.5. They name photos of COCO 2017."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloc.files import is_text
from cloc.formats.annotated import AnnotatedSet, find_category_ids, read_annotated
from cloc.formats.photos import normalise_path
from cloc.formats.sources import PhotoFolders


def read_lvis(file: Path, image_dirs: Sequence[Path], name: str = "lvis") -> AnnotatedSet:
    """Read an LVIS file.

    A photo is looked for in `image_dirs` under `find_lvis_photo_names` by the rule of `Photos` (v1: val holds photos of
    both COCO folders, which `coco_url` names). Where it is nowhere, `path` is the first place looked at.

    Raises:
        ValueError: the file is missing or is no LVIS file, or no folder is given.
    """
    file, folders = Path(file), [Path(folder) for folder in image_dirs]
    if not folders:
        raise ValueError("image_dirs: expected at least one folder, such as coco/val2017, got none")
    photos = PhotoFolders(folders)

    def fields(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
        names = find_lvis_photo_names(entry)
        if not names:
            raise ValueError(f"{where}: expected coco_url (v1) or file_name (v0.5), got neither")
        lists = ("neg_category_ids", "not_exhaustive_category_ids")
        return {"path": photos.path(*names, where=where)} | {field: find_category_ids(entry, field) for field in lists}

    return read_annotated(file, "an LVIS annotation file", name, fields, named=False)


_COCO_URL = re.compile(r"^(?:https?:)?//[^/]+/(?:.*/)?((?:train|val|test|unlabeled)2017/\d{12}\.jpg)$", re.ASCII)
_COCO_2014 = re.compile(r"^(?:.*/)?COCO_(?:train|val|test)2014_(\d{12})\.jpg$", re.ASCII)


def find_lvis_photo_names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Names under which the photo of an image may lie, the likeliest first; empty where nothing tells.

    v1 tells by `coco_url` where among COCO 2017's folders it is; v0.5's `file_name` (COCO_val2014_...) gives the number
    alone. Files of other photos in LVIS's layout (TAO, CVAT, datumaro) name them in `file_name`, beside a `coco_url`
    that is missing, empty or another address. A number in such a name is not COCO's.
    """
    url, file_name = entry.get("coco_url"), entry.get("file_name")
    url = urllib.parse.unquote(url.strip()) if is_text(url) else ""
    named = normalise_path(file_name) if is_text(file_name) and file_name.strip() else ""
    coco, old = _COCO_URL.match(url), _COCO_2014.match(named)
    number = old.group(1) if old else _find_number(named)
    if coco and (not named or number == coco.group(1)[-16:-4]):
        inside = coco.group(1)
        return (inside, inside.rpartition("/")[2])
    if old:
        return (f"{old.group(1)}.jpg", named)
    if named:
        return (named,)
    path = urllib.parse.urlsplit(url).path.strip("/") if url else ""
    return (path,) if path else ()


def _find_number(named: str) -> str:
    """The twelve digits of a name of COCO 2017, with or without its folder."""
    found = re.fullmatch(r"(?:.*/)?(\d{12})\.jpg", named, re.ASCII)
    return found.group(1) if found else ""
