"""Find things by name in images: `python -m cloc.detect IMAGE... --classes "a, b, c"`.

In: image files or folders of them, names and an export with a detector. Out: a folder with each image and its boxes,
the detections as COCO results, and the images and categories that their numbers stand for: those of a COCO file where
one is given with `--annotations`, else counted from 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cloc.command import run


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cloc.detect",
        description="Find things by name in images with an export that has a detector. Writes each image with boxes "
        "drawn, detections.json (COCO results) and images_and_categories.json (what their numbers stand for).",
        epilog='Example: python -m cloc.detect street.jpg --classes "traffic light, red car, person on a bicycle"',
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="image files (JPEG, PNG, WebP, BMP, GIF, TIFF), or folders: all images below them",
    )
    parser.add_argument(
        "--classes",
        help="what to look for: names with commas between them, each once (default: all categories of --annotations)",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="a COCO or LVIS file: detections carry its image ids and category ids, so that they can be scored with it",
    )
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="for an export trained on `name, definition`: a category file with definitions, for example LVIS's "
        "(default: those of its training)",
    )
    parser.add_argument(
        "--model", type=Path, metavar="EXPORT", help="an export with a detector (default: the newest below runs/)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder to write (default: the next free runs/detect-N)"
    )
    parser.add_argument("--score", type=float, default=0.3, help="least score of a detection, 0 to 1 (default: 0.3)")
    parser.add_argument("--limit", type=int, default=100, help="detections an image at most (default: 100)")
    parser.add_argument(
        "--boxes-a-level",
        type=int,
        default=1000,
        metavar="N",
        help="that reach the suppression from each of the detector's five levels (default: 1000); it bounds --limit",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    asked = parse(arguments)

    def work() -> int:
        from cloc.detect.detecting import detect

        return detect(asked)

    return run(work, "pictures drawn so far lie in the folder of the answers, without detections.json")


if __name__ == "__main__":
    sys.exit(main())
