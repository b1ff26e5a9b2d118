"""LVIS's annotation files, v1 and v0.5. They name photos of COCO 2017."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloc.data.formats.annotated import (
    AnnotatedImage,
    AnnotatedSet,
    Annotations,
    image_size,
    load_json,
    read_categories,
)
from cloc.data.formats.corners import CornerWatch


def read_lvis(file: Path, image_dirs: Sequence[Path], name: str = "lvis") -> AnnotatedSet:
    """Read an LVIS file.

    A photo is looked for in `image_dirs` as `%012d.jpg`, first in the folder that `coco_url` names (v1: val holds
    photos of both COCO folders), then in order; v0.5's `file_name` (COCO_val2014_...) gives the number. Where it is
    nowhere, `path` is the first place looked at.

    Raises:
        ValueError: the file is missing or is no LVIS file, or no folder is given.
    """
    file, folders = Path(file), [Path(folder) for folder in image_dirs]
    if not folders:
        raise ValueError("image_dirs: expected at least one folder, such as coco/val2017, got none")
    content = load_json(file, "an LVIS annotation file", ("images", "annotations", "categories"))
    categories = read_categories(content, file)
    sizes = {}
    for place, entry in enumerate(content["images"]):
        image_id, width, height = image_size(entry, place, file)
        if image_id in sizes:
            raise ValueError(f"{file}: images[{place}]: expected a new id, got {image_id} again")
        sizes[image_id] = (width, height)
    watch = CornerWatch(file)
    watch.see(content["annotations"], sizes)
    watch.refuse()
    annotations = Annotations(content["annotations"], sizes, categories)
    images = tuple(
        AnnotatedImage(
            image_id=entry["id"],
            path=_photo(entry, place, file, folders),
            width=entry["width"],
            height=entry["height"],
            neg_category_ids=frozenset(entry.get("neg_category_ids", ())),
            not_exhaustive_category_ids=frozenset(entry.get("not_exhaustive_category_ids", ())),
            **annotations.of(entry["id"]),
        )
        for place, entry in enumerate(content["images"])
    )
    rendered = bool(content.get("info", {}).get("rendered", False))
    return AnnotatedSet(name, images, categories, rendered, file, annotations.dropped)


def lvis_photo_names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the photo of an image lies among COCO 2017's folders, the likeliest first; empty where nothing tells.

    v1 tells by `coco_url`, in which folder it is; v0.5's `file_name` (COCO_val2014_...) gives the number alone.
    """
    url, file_name = entry.get("coco_url"), entry.get("file_name")
    told = url if isinstance(url, str) else file_name
    if not isinstance(told, str):
        return ()
    parts = told.split("/")
    number = re.search(r"(\d+)\.\w+$", parts[-1])
    base = f"{int(number.group(1)):012d}.jpg" if number else parts[-1]
    return (f"{parts[-2]}/{base}", base) if len(parts) > 1 else (base,)


def _photo(entry: Mapping[str, Any], place: int, file: Path, folders: list[Path]) -> Path:
    names = lvis_photo_names(entry)
    if not names:
        raise ValueError(f"{file}: images[{place}]: expected coco_url (v1) or file_name (v0.5), got neither")
    named = names[0].rpartition("/")[0]
    candidates = [folder / names[-1] for folder in sorted(folders, key=lambda folder: folder.name != named)]
    return next((path for path in candidates if path.is_file()), candidates[0])
