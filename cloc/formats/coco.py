"""COCO's instances and captions files, 2014 and 2017."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloc.formats.annotated import AnnotatedSet, find_caption, load_json, read_annotated
from cloc.formats.numbers import parse_whole
from cloc.formats.photos import normalise_path
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
    photos = None if images_dir is None else PhotoFolders([Path(images_dir)])

    def fields(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
        named = entry["file_name"]
        return {"path": Path(normalise_path(named)) if photos is None else photos.path(named, where=where)}

    found = read_annotated(Path(instances), "a COCO instances file", name, fields, named=True)
    again = len(found.images) - len({normalise_path(image.file_name) for image in found.images})
    found.dropped.update({"file_name_again": again} if again else {})
    if captions is None:
        return replace(found, dropped=+found.dropped)
    texts, dropped = _read_captions(captions, {image.image_id for image in found.images})
    images = tuple(replace(image, captions=tuple(texts.get(image.image_id, ()))) for image in found.images)
    return replace(found, images=images, dropped=found.dropped + dropped)


def _read_captions(file: Path, known: set[int]) -> tuple[dict[int, list[str]], Counter[str]]:
    content = load_json(Path(file), "a COCO captions file", ("annotations",))
    texts, dropped = defaultdict(list), Counter[str]()
    for entry in content["annotations"]:
        fields = entry if isinstance(entry, Mapping) else {}
        image_id, text = parse_whole(fields.get("image_id")), find_caption(fields)
        if image_id not in known:
            dropped["caption_of_unknown_image"] += 1
        elif not text:
            dropped["empty_caption"] += 1
        else:
            texts[image_id].append(text)
    return texts, dropped
