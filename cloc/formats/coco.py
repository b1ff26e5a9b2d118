"""COCO's instances and captions files, 2014 and 2017."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloc.files import is_text
from cloc.formats.annotated import (
    AnnotatedImage,
    AnnotatedSet,
    Annotations,
    caption_text,
    image_size,
    is_rendered,
    load_json,
    read_categories,
)
from cloc.formats.frames import FrameWatch
from cloc.formats.numbers import whole
from cloc.formats.photos import normal_path
from cloc.formats.sources import PhotoFolders


def read_coco(
    instances: Path, images_dir: Path | None, captions: Path | None = None, name: str = "coco"
) -> AnnotatedSet:
    """Read an instances file, with the captions of its images where a captions file is given.

    Args:
        instances: `instances_*.json`.
        images_dir: folder in which `file_name` is looked for by the rule of `Photos`; a photo need not be there. None:
            nowhere, `path` is the name alone.
        captions: `captions_*.json`; captions of images that `instances` does not know are counted as
            caption_of_unknown_image, empty ones as empty_caption.
        name: of the data set.

    Raises:
        ValueError: a file is missing or is no such file.
    """
    instances = Path(instances)
    photos = None if images_dir is None else PhotoFolders([Path(images_dir)])
    content = load_json(instances, "a COCO instances file", ("images", "annotations", "categories"))
    categories = read_categories(content, instances)
    sizes: dict[int, tuple[int, int]] = {}
    entries: dict[int, Mapping[str, Any]] = {}
    for index, entry in enumerate(content["images"]):
        image_id, width, height = image_size(entry, index, instances)
        if image_id in sizes or not is_text(entry.get("file_name")):
            raise ValueError(f"{instances}: images[{index}]: expected a new id and a file_name, got {entry!r:.200}")
        sizes[image_id], entries[image_id] = (width, height), entry
    watch = FrameWatch(instances)
    annotations = Annotations(content["annotations"], sizes, categories, watch)
    watch.refuse(annotations.dropped)
    again = len(entries) - len({normal_path(entry["file_name"]) for entry in entries.values()})
    annotations.dropped.update({"file_name_again": again} if again else {})
    texts, dropped = _captions(captions, sizes) if captions is not None else ({}, Counter[str]())
    images = tuple(
        AnnotatedImage(
            image_id=image_id,
            path=_photo(photos, entry["file_name"], f"{instances}: images[{index}]"),
            width=sizes[image_id][0],
            height=sizes[image_id][1],
            file_name=entry["file_name"],
            captions=tuple(texts.get(image_id, ())),
            **annotations.of(image_id),
        )
        for index, (image_id, entry) in enumerate(entries.items())
    )
    return AnnotatedSet(name, images, categories, is_rendered(content), instances, annotations.dropped + dropped)


def _photo(photos: PhotoFolders | None, name: str, where: str) -> Path:
    return Path(normal_path(name)) if photos is None else photos.path(name, where=where)


def _captions(file: Path, known: dict[int, tuple[int, int]]) -> tuple[dict[int, list[str]], Counter[str]]:
    content = load_json(Path(file), "a COCO captions file", ("annotations",))
    texts, dropped = defaultdict(list), Counter[str]()
    for entry in content["annotations"]:
        fields = entry if isinstance(entry, Mapping) else {}
        image_id, text = whole(fields.get("image_id")), caption_text(fields)
        if image_id not in known:
            dropped["caption_of_unknown_image"] += 1
        elif not text:
            dropped["empty_caption"] += 1
        else:
            texts[image_id].append(text)
    return texts, dropped
