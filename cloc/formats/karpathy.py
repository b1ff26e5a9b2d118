"""Karpathy's split files of COCO and Flickr30k (`dataset_coco.json`, `dataset_flickr30k.json`): retrieval test sets.

Layout (Karpathy and Fei-Fei 2015): `{"dataset", "images": [{"filename", "filepath"?, "split", "imgid", "cocoid"?,
"sentences": [{"raw", "sentid"}]}]}`. No sizes are given, so an image's size is not checked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cloc.files import is_text
from cloc.formats.annotated import AnnotatedSet, load_json
from cloc.formats.numbers import parse_whole
from cloc.formats.sources import PhotoFolders


@dataclass(frozen=True)
class Captioned:
    """One image with its captions.

    Attributes:
        image_id: as in its file.
        path: where the photo is looked for.
        captions: at least one.
        size: width and height as annotated; None where the layout gives none.
    """

    image_id: int
    path: Path
    captions: tuple[str, ...]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class CaptionedSet:
    """Images with captions.

    Attributes:
        name: of the data set.
        images: in the order of the file.
        rendered: whether they are rendered scenes.
        dropped: by reason.
    """

    name: str
    images: tuple[Captioned, ...]
    rendered: bool = False
    dropped: Counter[str] = field(default_factory=Counter)


def read_karpathy(file: Path, photos: Path, split: str, name: str) -> CaptionedSet:
    """Read one split of a Karpathy file.

    Raises:
        ValueError: the file is missing or of another layout, or has no image of that split.
    """
    content = load_json(file, "a Karpathy split file", ("images",))
    images, dropped, folders = [], Counter[str](), PhotoFolders([photos])
    for place, entry in enumerate(content["images"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            raise ValueError(f"{file}: images[{place}]: expected an object with filename, got {entry!r:.80}")
        if entry.get("split") != split:
            continue
        sentences = entry.get("sentences")
        raw = [one.get("raw") for one in sentences if isinstance(one, dict)] if isinstance(sentences, list) else []
        captions = tuple(" ".join(text.split()) for text in raw if is_text(text) and text.strip())
        if not captions:
            dropped["no_caption"] += 1
            continue
        number = next((n for n in map(parse_whole, (entry.get("cocoid"), entry.get("imgid"))) if n is not None), place)
        named = f"{entry['filepath']}/{entry['filename']}" if entry.get("filepath") else entry["filename"]
        where = folders.path(named, where=f"{file}: images[{place}]")
        images.append(Captioned(number, where, captions))
    if not images:
        raise ValueError(f"{file}: expected images of the split {split!r}, found none")
    return CaptionedSet(name, tuple(images), False, dropped)


def from_annotated(dataset: AnnotatedSet) -> CaptionedSet:
    """The images of a COCO set that have captions; the others are counted."""
    images = tuple(
        Captioned(image.image_id, image.path, image.captions, (image.width, image.height))
        for image in dataset.images
        if image.captions
    )
    dropped = Counter({k: v for k, v in dataset.dropped.items() if "caption" in k})
    dropped["image_without_caption"] = len(dataset.images) - len(images)
    return CaptionedSet(dataset.name, images, dataset.rendered, +dropped)
