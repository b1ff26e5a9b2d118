"""Make conversations for `mllm_bridge.tune`: `python -m mllm_bridge.conversations coco ... --images DIR --out DIR`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from cloc import command
from cloc.box_text import BoxTextFormat, Scale
from cloc.disk import atomic_dir
from mllm_bridge.conversations.making import KINDS, read_coco_photos, read_entities_photos, write_conversations


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mllm_bridge.conversations",
        description="Make conversations about photos (captions, 'what is in this box?', 'where is this?') from "
        "annotation files, in LLaVA's layout, with a held-out part. python -m mllm_bridge.tune trains on them.",
        epilog="Example: python -m mllm_bridge.conversations coco --instances "
        "data/coco/annotations/instances_train2017.json --captions data/coco/annotations/captions_train2017.json "
        "--images data/coco/train2017 --out data/talk",
    )
    kinds = parser.add_subparsers(dest="layout", required=True, metavar="coco|entities")
    coco = kinds.add_parser("coco", help="COCO's instances and captions, or any file of that layout")
    coco.add_argument("--instances", type=Path, required=True, metavar="FILE", help="instances_*.json")
    coco.add_argument("--captions", type=Path, metavar="FILE", help="captions_*.json; without it no captions are asked")
    entities = kinds.add_parser("entities", help="Flickr30k Entities")
    entities.add_argument("--root", type=Path, required=True, metavar="DIR", help="holds Sentences and Annotations")
    entities.add_argument("--split", default="train", help="list of photos, as train.txt (default: %(default)s)")
    for one in (coco, entities):
        one.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
        one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
        one.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what is asked (default: all)")
        one.add_argument("--rounds", type=int, default=4, metavar="N", help="of each kind about a photo, at most (4)")
        one.add_argument("--held-out", type=float, default=0.05, metavar="SHARE", help="of the photos (0.05)")
        one.add_argument("--seed", type=int, default=0, help="of every draw (default: 0)")
        one.add_argument("--scale", choices=get_args(Scale), default="unit", help="numbers of a box (default: unit)")
        one.add_argument(
            "--frame",
            choices=("padded", "image"),
            help="what they refer to: the image padded to a square (default, as LLaVA-1.5's own data; not for pixels) "
            "or the image",
        )
        one.add_argument("--digits", type=int, default=3, help="decimals of the scale unit (default: 3)")
        one.add_argument("--bins", type=int, default=32, help="of the scale bins (default: 32)")
    return parser.parse_args(arguments)


def make(asked: argparse.Namespace) -> None:
    """Write the folder and say how it is trained on.

    Raises:
        ValueError: an input is missing or holds nothing to ask about, or an option does not fit.
    """
    if asked.rounds < 1 or not 0 <= asked.held_out < 1:
        raise ValueError(
            f"--rounds and --held-out: expected at least 1, and 0 up to below 1; got {asked.rounds}, {asked.held_out}"
        )
    if asked.seed < 0:
        raise ValueError(f"--seed: expected 0 or more, got {asked.seed}")
    frame = asked.frame or ("image" if asked.scale == "pixels" else "padded")
    box_format = BoxTextFormat(asked.scale, frame == "padded", asked.digits, asked.bins)
    if not asked.images.is_dir():
        raise ValueError(f"--images {asked.images}: there is no such folder")
    dropped = Counter[str]()
    if asked.layout == "coco":
        photos, source = read_coco_photos(asked.instances, asked.captions, asked.images, dropped), asked.instances.name
    else:
        photos, source = read_entities_photos(asked.root, asked.split, dropped), f"Flickr30k Entities, {asked.split}"
    with atomic_dir(asked.out) as folder:
        counts = write_conversations(
            photos, asked.images, folder, box_format, asked.kinds, asked.rounds, asked.held_out, asked.seed, source
        )
    counted = ", ".join(f"{name} {count:,}" for name, count in sorted((counts + dropped).items()))
    print(command.printable(f"written: {asked.out} ({counted})"))
    options = [f"places.scale={box_format.scale}", f"places.padded={str(box_format.padded).lower()}"]
    options += [f"places.digits={box_format.digits}"] * (box_format.scale == "unit")
    options += [f"places.bins={box_format.bins}"] * (box_format.scale == "bins")
    paths = [f"data.0.path={asked.out / 'conversations_regions.json'}", f"data.0.images={asked.images}"]
    again = ["python", "-m", "mllm_bridge.tune", "--config", "configs/bridge/tiny.yaml", "host=HOST", *paths, *options]
    print(command.printable(f"train on it: {shlex.join(again)}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    asked = parse(arguments)
    return command.run(lambda: make(asked))


if __name__ == "__main__":
    sys.exit(main())
