"""COCO's instances and captions files, 2014 and 2017."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from cloc.data.formats.annotated import (
    AnnotatedImage,
    AnnotatedSet,
    Annotations,
    image_size,
    load_json,
    read_categories,
)
from cloc.data.formats.corners import CornerWatch


def read_coco(instances: Path, images_dir: Path, captions: Path | None = None, name: str = "coco") -> AnnotatedSet:
    """Read an instances file, with the captions of its images where a captions file is given.

    Args:
        instances: `instances_*.json`.
        images_dir: folder in which `file_name` is looked for; whether a photo is there is not checked here.
        captions: `captions_*.json`; captions of images that `instances` does not know are counted as
            caption_of_unknown_image, empty ones as empty_caption.
        name: of the data set.

    Raises:
        ValueError: a file is missing or is no such file.
    """
    instances, images_dir = Path(instances), Path(images_dir)
    content = load_json(instances, "a COCO instances file", ("images", "annotations", "categories"))
    categories = read_categories(content, instances)
    sizes = {}
    for place, entry in enumerate(content["images"]):
        image_id, width, height = image_size(entry, place, instances)
        if image_id in sizes or not isinstance(entry.get("file_name"), str):
            raise ValueError(f"{instances}: images[{place}]: expected a new id and a file_name, got {entry!r}")
        inside = PurePosixPath(entry["file_name"])
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(
                f"{instances}: images[{place}]: expected a file_name inside the folder, got {str(inside)!r}"
            )
        sizes[image_id] = (width, height)
    watch = CornerWatch(instances)
    watch.see(content["annotations"], sizes)
    watch.refuse()
    annotations = Annotations(content["annotations"], sizes, categories)
    texts, dropped = _captions(captions, sizes) if captions is not None else ({}, Counter[str]())
    images = tuple(
        AnnotatedImage(
            image_id=entry["id"],
            path=images_dir / entry["file_name"],
            width=entry["width"],
            height=entry["height"],
            captions=tuple(texts.get(entry["id"], ())),
            **annotations.of(entry["id"]),
        )
        for entry in content["images"]
    )
    rendered = bool(content.get("info", {}).get("rendered", False))
    return AnnotatedSet(name, images, categories, rendered, instances, annotations.dropped + dropped)


def _captions(file: Path, known: dict[int, tuple[int, int]]) -> tuple[dict[int, list[str]], Counter[str]]:
    content = load_json(Path(file), "a COCO captions file", ("annotations",))
    texts, dropped = defaultdict(list), Counter[str]()
    for entry in content["annotations"]:
        text = " ".join(str(entry.get("caption", "")).split())  # some captions hold line ends
        if entry.get("image_id") not in known:
            dropped["caption_of_unknown_image"] += 1
        elif not text:
            dropped["empty_caption"] += 1
        else:
            texts[entry["image_id"]].append(text)
    return texts, dropped
