"""Images with one class each: class folders (as torchvision reads them) or CLIP_benchmark's WebDataset shards.

Layouts, under `zeroshot/NAME/`:
- `SPLIT/CLASS/*.jpg`, the folders in sorted order being classes 0, 1, ...;
- `SPLIT/*.tar` with `KEY.cls` (the class number) beside `KEY.jpg`, and `classnames.txt`, one name a line.
Names come from `classnames.txt`, else from `categories/clip_benchmark_en_classnames.json` under NAME, else the folders'
names; templates (with `{c}`) from `zeroshot_classification_templates.txt`, else from the JSON of templates, else the
name alone. `dataset.json` with `"rendered": true` marks rendered images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloc.data.shards.card import read_card
from cloc.data.shards.read import ShardIndex
from cloc.files import read_object
from cloc.formats.annotated import load_json

ENDINGS = ("jpg", "jpeg", "png", "webp")
NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
LISTS = ("clip_benchmark_en_classnames.json", "clip_benchmark_en_zeroshot_templates.json")
PLAIN = ("{c}",)


@dataclass(frozen=True)
class ClassImage:
    """One image.

    Attributes:
        path: of the image, or of the tar that holds it.
        label: its class.
        place: (offset, size) in the tar; None for a file.
        key: its name for people.
    """

    path: Path
    label: int
    place: tuple[int, int] | None
    key: str

    def read(self) -> bytes:
        """The encoded image."""
        if self.place is None:
            return self.path.read_bytes()
        with self.path.open("rb") as tar:
            tar.seek(self.place[0])
            return tar.read(self.place[1])


@dataclass(frozen=True)
class ClassSet:
    """A split of a classification set.

    Attributes:
        name: of the set.
        images: in the order of their names.
        names: of the classes.
        templates: each with `{c}` where the name goes.
        source: where the names and templates came from, for the protocol.
        rendered: whether the images are rendered scenes.
        dropped: members of shards without a class, by reason.
    """

    name: str
    images: tuple[ClassImage, ...]
    names: tuple[str, ...]
    templates: tuple[str, ...]
    source: str
    rendered: bool
    dropped: dict[str, int]


def find_class_splits(folder: Path) -> list[str]:
    """Splits that lie in the folder of a set, `train` left out."""
    there = sorted(part for part in folder.iterdir() if part.is_dir() and part.name != "train")
    return [part.name for part in there if any(part.glob("*.tar")) or any(sub.is_dir() for sub in part.iterdir())]


def read_classes(folder: Path, split: str, lists: Path) -> ClassSet:
    """Read one split.

    Args:
        folder: `zeroshot/NAME`.
        split: name of its folder.
        lists: folder of CLIP_benchmark's lists; it need not be there.

    Raises:
        ValueError: there is no image, the names are fewer than the classes, or a template has no `{c}`.
    """
    place, dropped = folder / split, dict[str, int]()
    tars = sorted(place.glob("*.tar"))
    if tars:
        images, classes = _from_shards(tars, dropped), []
    else:
        classes = sorted(part.name for part in place.iterdir() if part.is_dir())
        images = _from_folders(place, classes)
    if not images:
        raise ValueError(f"{place}: expected class folders with images or shards with .cls, found no image")
    names, by = _names(folder, lists, classes)
    highest = max(image.label for image in images)
    if highest >= len(names) or (classes and len(names) != len(classes)):
        raise ValueError(
            f"{folder}: {len(classes) or highest + 1} classes but {len(names)} names ({by}); expected as many; write "
            f"{folder / NAMES}, one name a line in the order of the classes"
        )
    templates, how = _templates(folder, lists)
    rendered = bool((read_card(folder) or {}).get("rendered", False))
    return ClassSet(folder.name, tuple(images), names, templates, f"{by}/{how}", rendered, dropped)


def _from_folders(place: Path, classes: list[str]) -> list[ClassImage]:
    return [
        ClassImage(path, label, None, f"{name}/{path.name}")
        for label, name in enumerate(classes)
        for path in sorted((place / name).rglob("*"))
        if path.suffix.lower().lstrip(".") in ENDINGS
    ]


def _from_shards(tars: list[Path], dropped: dict[str, int]) -> list[ClassImage]:
    images = []
    for tar in tars:
        index = ShardIndex.open(tar)
        for reason, count in index.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        with tar.open("rb") as raw:
            for key, members in index.entries:
                kind = next((ending for ending in ENDINGS if ending in members), None)
                label = _label(raw, members.get("cls"))
                if kind is None or label is None:
                    why = "no_image" if kind is None else "no_class"
                    dropped[why] = dropped.get(why, 0) + 1
                    continue
                images.append(ClassImage(tar, label, members[kind], f"{tar.name}/{key}"))
    return images


def _label(raw, place: tuple[int, int] | None) -> int | None:
    if place is None:
        return None
    raw.seek(place[0])
    number = raw.read(place[1]).strip()
    return int(number) if number.isdigit() else None


def _names(folder: Path, lists: Path, classes: list[str]) -> tuple[tuple[str, ...], str]:
    if (folder / NAMES).is_file():
        return _lines(folder / NAMES), "own-names"
    listed = load_json(lists / LISTS[0], "a list of class names") if (lists / LISTS[0]).is_file() else {}
    if folder.name in listed:
        return tuple(listed[folder.name]), "clip-benchmark-names"
    if classes:
        return tuple(name.replace("_", " ") for name in classes), "folder-names"
    raise ValueError(f"{folder}: shards hold class numbers only; expected their names in {folder / NAMES}")


def _templates(folder: Path, lists: Path) -> tuple[tuple[str, ...], str]:
    found: tuple[str, ...] = ()
    if (folder / TEMPLATES).is_file():
        found = _lines(folder / TEMPLATES)
    elif (lists / LISTS[1]).is_file():
        found = tuple(read_object(lists / LISTS[1], "lists of templates").get(folder.name, ()))
    if not found:
        return PLAIN, "no-template"
    odd = [template for template in found if "{c}" not in template]
    if odd:
        raise ValueError(f"{folder}: expected {{c}} in every template, got {odd[0]!r}")
    return found, f"{len(found)}-templates"


def _lines(file: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
