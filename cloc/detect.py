"""Find things by name in images: `python -m cloc.detect IMAGE... --classes "a, b, c"`.

In: image files, names and an export with a detector. Out: a folder with each image and its boxes, the detections as
COCO results, and the images and categories that their numbers stand for.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm
from transformers import AutoProcessor
from transformers.utils.logging import disable_progress_bar

from cloc.boxes import xyxy_to_xywh
from cloc.config.run import DETECTING
from cloc.data.concepts import ConceptDictionary
from cloc.device import find_device
from cloc.export import newest_export, next_numbered, read_card
from cloc.export.loading import weights_of
from cloc.images import read_photo
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
            found.append(newest_export(runs, objective))
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


def coco_results(found: Found, image_id: int) -> list[dict[str, Any]]:
    """Detections of one image as entries of a COCO results file; category n is the n-th name, from 1."""
    boxes_xywh = xyxy_to_xywh(found["boxes"]).round(2).tolist()
    rows = zip(boxes_xywh, found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": label + 1, "bbox": box, "score": round(score, 5)}
        for box, score, label in rows
    ]


def sentences(names: Sequence[str], reads_definitions: bool, file: Path | None) -> list[str]:
    """What the text tower reads for each name: the form of training.

    Args:
        names: what is looked for.
        reads_definitions: whether the export was trained on `name, definition`.
        file: a category file with definitions (see `cloc.data.concepts.read_categories`), None for none; a name that
            it lacks takes the definition of its head, as in training.

    Raises:
        ValueError: definitions for an export that was trained on bare names, or the file holds no categories.
    """
    if file is None:
        return [concept_name(name) for name in names]
    if not reads_definitions:
        raise ValueError("--definitions: this export was trained on bare names; leave the definitions out")
    known = ConceptDictionary.read(file)
    return [known.sentence(name) for name in names]


def detect_files(
    paths: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    out: Path,
    score: float,
    limit: int,
    definitions: Path | None = None,
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

    Returns:
        How many detections each readable file has, and why the others could not be read.

    Raises:
        ValueError: the export has no detector or cannot be read, or not one file could be read.
    """
    with weights_of(folder):
        model = ClocForObjectDetection.from_pretrained(folder, trust_remote_code=False, use_safetensors=True).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    model.to(find_device())
    reads_definitions = model.config.detector_config.definitions
    concepts = sentences(names, reads_definitions, definitions)
    if reads_definitions and definitions is None:
        print("warning: trained on `name, definition`, asked by name; --definitions FILE gives them", file=sys.stderr)
    images, results, counts, bad = [], [], {}, {}
    for path in tqdm(paths, unit="image", disable=len(paths) < 2):
        try:
            image = read_photo(path)
        except ValueError as error:
            bad[str(path)] = str(error)
            continue
        found = model.detect([image], concepts, processor, limit=limit, score_threshold=score)[0]
        number = len(images) + 1
        out.mkdir(parents=True, exist_ok=True)
        draw(image, found, names).save(out / f"{number:04d}-{path.stem}.png")
        images.append({"id": number, "file_name": str(path), "width": image.width, "height": image.height})
        results += coco_results(found, number)
        counts[str(path)] = len(found["scores"])
    if not images:
        told = "; ".join(f"{path}: {reason}" for path, reason in bad.items())
        raise ValueError(f"not one image could be read ({told}); give files in JPEG, PNG, WebP, BMP, GIF or TIFF")
    categories = [{"id": row + 1, "name": name} for row, name in enumerate(names)]
    legend = {"images": images, "categories": categories, "annotations": []}
    (out / "images_and_categories.json").write_text(json.dumps(legend, indent=1) + "\n", encoding="utf-8")
    lines = ",\n".join(json.dumps(result) for result in results)
    (out / "detections.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return counts, bad


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cloc.detect",
        description="Find things by name in images with an export that has a detector. Writes each image with boxes "
        "drawn, detections.json (COCO results) and images_and_categories.json (what their numbers stand for).",
        epilog='Example: python -m cloc.detect street.jpg --classes "traffic light, red car, person on a bicycle"',
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files (JPEG, PNG, WebP, BMP, GIF, TIFF)"
    )
    parser.add_argument("--classes", required=True, help="what to look for: names with commas between them, each once")
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="for an export trained on `name, definition`: a category file with definitions, for example LVIS's",
    )
    parser.add_argument(
        "--model", type=Path, metavar="EXPORT", help="an export with a detector (default: the newest below runs/)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder to write (default: the next free runs/detect-N)"
    )
    parser.add_argument("--score", type=float, default=0.3, help="least score of a detection, 0 to 1 (default: 0.3)")
    parser.add_argument("--limit", type=int, default=100, help="detections an image at most (default: 100)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    asked = parse(arguments)
    disable_progress_bar()
    try:
        names = parse_classes(asked.classes)
        if not 0 <= asked.score <= 1 or asked.limit < 1:
            raise ValueError(
                f"--score and --limit: expected 0 to 1 and at least 1, got {asked.score} and {asked.limit}"
            )
        folder = asked.model or newest_detector()
        check_detector(folder)
        out = asked.out or next_numbered(Path("runs"), "detect")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"--out {out}: is there and not empty; name a new folder, nothing is overwritten")
        counts, bad = detect_files(asked.images, names, folder, out, asked.score, asked.limit, asked.definitions)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, count in counts.items():
        print(f"{path}: {count} detections")
    for path, reason in bad.items():
        print(f"warning: left out: {path}: {reason}", file=sys.stderr)
    print(f"{sum(counts.values())} detections on {len(counts)} images, {len(bad)} left out: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
