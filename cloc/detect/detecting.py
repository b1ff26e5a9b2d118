"""Detections on image files: which images and categories are meant, what is drawn, and what is written."""

from __future__ import annotations

import argparse
import colorsys
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm
from transformers import AutoProcessor

from cloc.boxes import xyxy_to_xywh
from cloc.command import printable
from cloc.config.run import DETECTING
from cloc.data.concepts import ConceptDictionary
from cloc.device import find_device
from cloc.export import find_newest_export, find_next_numbered, read_card
from cloc.files import LARGEST, read_object
from cloc.formats.numbers import parse_whole
from cloc.formats.photos import make_photo_key
from cloc.images import IMAGE_ENDINGS, read_photo
from cloc.model_folders import refusing_unreadable
from cloc.models.detection import ClocForObjectDetection
from cloc.text import canonical, concept_name

Found = Mapping[str, np.ndarray]
"""What `ClocForObjectDetection.detect` says of one image."""


def parse_classes(text: str) -> list[str]:
    """Names from a list with commas; blanks around them, doubled blanks and empty places mean nothing.

    Raises:
        ValueError: no name, or one name twice.
    """
    names = [" ".join(part.split()) for part in text.split(",")]
    names = [name for name in names if name]
    if not names:
        raise ValueError(
            f'--classes: expected names with commas between them, got {text!r}; write --classes "cat, dog"'
        )
    twice = [name for name, count in Counter(canonical(name) for name in names).items() if count > 1]
    if twice:
        raise ValueError(f"--classes: {', '.join(map(repr, twice))} stands there more than once; name each thing once")
    return names


def newest_detector(runs: Path = Path("runs")) -> Path:
    """The newest export with a detector below `runs`.

    Raises:
        ValueError: there is none; the message names the command that makes one.
    """
    found = []
    for objective in DETECTING:
        try:
            found.append(find_newest_export(runs, objective))
        except ValueError:
            continue
    if not found:
        raise ValueError(
            f"{runs}: no finished export with a detector; train one with objective=detclip or joint, or name one with "
            "--model runs/NAME/export"
        )
    return max(found, key=lambda folder: read_card(folder)["time"])


def check_detector(folder: Path) -> None:
    """Refuse a folder that is no finished export, or one whose objective trains no detector.

    Raises:
        ValueError: it is not; the message says what it is.
    """
    objective = read_card(folder)["objective"]
    if objective not in DETECTING:
        raise ValueError(
            f"--model {folder}: an export of objective {objective}, which has no detector; name one of objective "
            f"{' or '.join(DETECTING)}, or leave --model out for the newest below runs/"
        )


def draw(image: Image.Image, found: Found, names: Sequence[str]) -> Image.Image:
    """A copy of the image with its boxes, and above them their names and scores; one colour a name, the best on top."""
    picture = image.copy()
    brush, size = ImageDraw.Draw(picture), max(11, max(image.size) // 55)
    font = ImageFont.load_default(size)
    rows = list(zip(found["boxes"].tolist(), found["scores"], found["labels"], strict=True))[::-1]
    for box, _, label in rows:
        brush.rectangle(box, outline=_colour(label), width=max(2, size // 7))
    for (x0, y0, _, _), score, label in rows:
        words = f"{names[label]} {score:.2f}"
        left = max(0.0, min(x0, image.width - brush.textlength(words, font=font)))
        place, colour = (left, max(0.0, y0 - size - 2)), _colour(label)
        brush.rectangle(brush.textbbox(place, words, font=font), fill=colour)
        brightness = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
        brush.text(place, words, fill="black" if brightness > 140 else "white", font=font)
    return picture


def _colour(label: int) -> tuple[int, ...]:
    """Far from that of the labels before it."""
    return tuple(int(255 * v) for v in colorsys.hsv_to_rgb(label * 0.618 % 1.0, 0.75, 0.9))


def coco_results(found: Found, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections of one image as entries of a COCO results file; the n-th name has the n-th of the category ids."""
    boxes_xywh = xyxy_to_xywh(found["boxes"]).round(2).tolist()
    rows = zip(boxes_xywh, found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": round(score, 5)}
        for box, score, label in rows
    ]


@dataclass(frozen=True)
class Ids:
    """The numbers of a COCO file.

    Attributes:
        file: which.
        images: by name as in `make_photo_key`, (id, size as annotated or None).
        categories: id by name as in `canonical`, in the order of the file.
        names: of the categories as the file writes them, by id.
    """

    file: Path
    images: Mapping[str, tuple[int, tuple[int, int] | None]]
    categories: Mapping[str, int]
    names: Mapping[int, str]

    @classmethod
    def read(cls, file: Path) -> Ids:
        """Read `images` and `categories` of a COCO or LVIS file; its annotations are not looked at.

        Raises:
            ValueError: it is no such file, or a name or an id occurs twice.
        """
        content = read_object(file, "a COCO file with images and categories", largest=LARGEST)
        images, names = dict[str, tuple[int, tuple[int, int] | None]](), dict[int, str]()
        for kind in ("images", "categories"):
            if not isinstance(content.get(kind), list):
                raise ValueError(f"--annotations {file}: expected the lists images and categories, found no {kind}")
        for place, entry in enumerate(content["images"]):
            number, name = _entry(entry, "file_name", f"--annotations {file}: images[{place}]", entry_url(entry))
            width, height = parse_whole(entry.get("width")), parse_whole(entry.get("height"))
            if make_photo_key(name) in images:
                raise ValueError(f"--annotations {file}: images[{place}]: file_name {name!r} stands there twice")
            images[make_photo_key(name)] = (number, None if width is None or height is None else (width, height))
        for place, entry in enumerate(content["categories"]):
            number, name = _entry(entry, "name", f"--annotations {file}: categories[{place}]")
            if number in names:
                raise ValueError(f"--annotations {file}: categories[{place}]: id {number} stands there twice")
            names[number] = name
        by_name = dict[str, int]()
        for number, name in names.items():
            by_name.setdefault(canonical(concept_name(name)), number)
        if len({number for number, _ in images.values()}) < len(images):
            raise ValueError(f"--annotations {file}: an image id stands there twice")
        return cls(file, images, by_name, names)

    def images_of(self, paths: Sequence[Path]) -> dict[Path, tuple[int, tuple[int, int] | None]]:
        """(id, size) of those photos that are images of the file: by the longest end of a path that is a whole
        `file_name`; by its base name alone only where one entry and one of the photos have that, so that `cam2/1.jpg`
        is not taken for `cam1/1.jpg`.
        """
        found = dict[Path, tuple[int, tuple[int, int] | None]]()
        parts = {path: make_photo_key(path.absolute().as_posix()).strip("/").split("/") for path in paths}
        for path, own in parts.items():
            ends = ("/".join(own[start:]) for start in range(len(own)))
            name = next((end for end in ends if end in self.images), None)
            if name is not None:
                found[path] = self.images[name]
        entries = Counter(name.rpartition("/")[2] for name in self.images)
        photos = Counter(own[-1] for own in parts.values())
        by_base = {name.rpartition("/")[2]: one for name, one in self.images.items()}
        for path, own in parts.items():
            if path not in found and entries[own[-1]] == photos[own[-1]] == 1:
                found[path] = by_base[own[-1]]
        return found

    def category_ids(self, names: Sequence[str]) -> list[int]:
        """The ids of some names.

        Raises:
            ValueError: the file has no such category.
        """
        unknown = [name for name in names if canonical(concept_name(name)) not in self.categories]
        if unknown:
            raise ValueError(
                f"--classes: {', '.join(map(repr, unknown))} is no category of {self.file}; name categories of the "
                "file, leave --classes out for all of them, or --annotations for numbers from 1"
            )
        return [self.categories[canonical(concept_name(name))] for name in names]


def entry_url(entry: Any) -> str | None:
    """The end of `coco_url`, by which LVIS names its photos, as `val2017/000000000139.jpg`."""
    url = entry.get("coco_url") if isinstance(entry, dict) else None
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) and url else None


def _entry(entry: Any, field: str, what: str, instead: str | None = None) -> tuple[int, str]:
    number = parse_whole(entry.get("id")) if isinstance(entry, dict) else None
    name = (entry.get(field) or instead) if isinstance(entry, dict) else None
    if number is None or not isinstance(name, str) or not name:
        raise ValueError(f"{what}: expected a whole number id and a {field}, got {entry!r:.80}")
    return number, name


def photo_files(given: Sequence[Path]) -> list[Path]:
    """The files that are meant: each file itself, of a folder all images below it by name.

    Raises:
        ValueError: a folder holds no image.
    """
    found = list[Path]()
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS and file.is_file())
        if not inside:
            raise ValueError(f"{path}: expected a folder with images ({', '.join(IMAGE_ENDINGS)}), found none below it")
        found += inside
    return list(dict.fromkeys(found))


def sentences(
    names: Sequence[str], reads_definitions: bool, file: Path | None, trained: ConceptDictionary | None = None
) -> list[str]:
    """What the text tower reads for each name: the form of training.

    Args:
        names: what is looked for.
        reads_definitions: whether the export was trained on `name, definition`.
        file: a category file with definitions (see `cloc.data.concepts.read_categories`), None for none; a name that
            it lacks takes the definition of its head, as in training.
        trained: the export's own dictionary, read where no file is given.

    Raises:
        ValueError: definitions for an export that was trained on bare names, or the file holds no categories.
    """
    if file is not None and not reads_definitions:
        raise ValueError("--definitions: this export was trained on bare names; leave the definitions out")
    known = trained if file is None else ConceptDictionary.read(file)
    if not reads_definitions or known is None:
        return [concept_name(name) for name in names]
    return [known.sentence(name) for name in names]


def detect_files(
    paths: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    out: Path,
    score: float,
    limit: int,
    definitions: Path | None = None,
    ids: Ids | None = None,
    device: str = "auto",
    boxes_a_level: int = 1000,
) -> tuple[dict[str, int], dict[str, str]]:
    """Detect on each file and write the answers.

    Args:
        paths: image files.
        names: what to look for.
        folder: an export with a detector.
        out: folder to write, made here.
        score: least score.
        limit: detections an image.
        definitions: category file, for an export that was trained on `name, definition`.
        ids: of a COCO file, for images and categories; None numbers them from 1.
        device: as `find_device` takes it.
        boxes_a_level: (box, name) pairs of each level of the detector that reach the suppression.

    Returns:
        How many detections each readable file has, and why the others could not be read.

    Raises:
        ValueError: the export has no detector or cannot be read, or not one file could be read.
    """
    category_ids = ids.category_ids(names) if ids is not None else list(range(1, len(names) + 1))
    place = find_device(device)
    with refusing_unreadable(folder):
        model = ClocForObjectDetection.from_pretrained(folder, trust_remote_code=False, use_safetensors=True).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    model.to(place)
    reads_definitions = model.config.detector_config.definitions
    trained = ConceptDictionary.of_export(folder)
    concepts = sentences(names, reads_definitions, definitions, trained)
    if reads_definitions and definitions is None and trained is None:
        print("warning: trained on `name, definition`, asked by name; --definitions FILE gives them", file=sys.stderr)
    asked = {"limit": limit, "threshold": score, "per_level": boxes_a_level}
    images, results = list[dict[str, Any]](), list[dict[str, Any]]()
    counts, bad, taken = dict[str, int](), dict[str, str](), set[int]()
    known = {} if ids is None else ids.images_of(paths)
    # without a terminal there is no bar, so that a log holds lines alone
    for path in tqdm(paths, desc="detect", unit="image", leave=False, disable=True if len(paths) < 2 else None):
        number, size = (len(images) + 1, None) if ids is None else known.get(path, (None, None))
        if number is None or number in taken:
            assert ids is not None
            bad[str(path)] = f"is {'no image' if number is None else 'another photo of an image'} of {ids.file}"
            continue
        try:
            image = read_photo(path, size)
        except ValueError as error:
            bad[str(path)] = str(error)
            continue
        taken.add(number)
        found = model.detect([image], concepts, processor, **asked)[0]
        out.mkdir(parents=True, exist_ok=True)
        draw(image, found, names).save(out / f"{number:04d}-{path.stem}.png")
        images.append({"id": number, "file_name": str(path), "width": image.width, "height": image.height})
        results += coco_results(found, number, category_ids)
        counts[str(path)] = len(found["scores"])
    if not images:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:5])
        raise ValueError(f"not one image could be read ({reasons}); give files in JPEG, PNG, WebP, BMP, GIF or TIFF")
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)]
    legend = {"images": images, "categories": categories, "annotations": []}
    (out / "images_and_categories.json").write_text(json.dumps(legend, indent=1) + "\n", encoding="utf-8")
    lines = ",\n".join(json.dumps(result) for result in results)
    (out / "detections.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return counts, bad


def detect(asked: argparse.Namespace) -> int:
    """Do what the command line says.

    Raises:
        ValueError: it cannot be done.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if not 0 <= asked.score <= 1 or asked.limit < 1:
        raise ValueError(f"--score and --limit: expected 0 to 1 and at least 1, got {asked.score} and {asked.limit}")
    if asked.boxes_a_level < 1:
        raise ValueError(f"--boxes-a-level: expected at least 1, got {asked.boxes_a_level}")
    if asked.classes is None and asked.annotations is None:
        raise ValueError('--classes: expected names of what to look for, got none; write --classes "cat, dog"')
    names = None if asked.classes is None else parse_classes(asked.classes)
    ids = None if asked.annotations is None else Ids.read(asked.annotations)
    if names is None:
        assert ids is not None
        names = [ids.names[number] for number in ids.categories.values()]
    folder = asked.model or newest_detector()
    check_detector(folder)
    out = asked.out or find_next_numbered(Path("runs"), "detect")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: is there and not empty; name a new folder, nothing is overwritten")
    paths, more = photo_files(asked.images), (asked.definitions, ids, asked.device, asked.boxes_a_level)
    counts, bad = detect_files(paths, names, folder, out, asked.score, asked.limit, *more)
    for path, count in counts.items():
        print(printable(f"{path}: {count} detections"))
    for path, reason in bad.items():
        print(printable(f"warning: left out: {path}: {reason}"), file=sys.stderr)
    print(printable(f"{sum(counts.values())} detections on {len(counts)} images, {len(bad)} left out: {out}"))
    return 0
