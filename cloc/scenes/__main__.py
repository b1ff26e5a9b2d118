"""`python -m cloc.scenes`: render a world."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cloc import command
from cloc.scenes.build import ensure_scenes, read_world
from cloc.scenes.categories import NAMES, SPRITES, WORDS
from cloc.scenes.contact_sheet import write_sheet
from cloc.scenes.world import COORDINATES, PRESETS, WorldSpec, make_preset

FLAGS = {
    "scenes written": {
        "train": "training scenes with regions (OUT/train)",
        "detection": "training scenes with boxes, categories and no caption (OUT/detection)",
        "grounding": "training scenes with captions and boxes for their phrases (OUT/grounding)",
        "pairs": "training scenes with captions only (OUT/pairs)",
        "shuffle_captions": "write OUT/pairs-shuffled too: the images of pairs, each with the caption of another one",
        "val": "scenes in the COCO and LVIS files",
        "refcoco": "scenes in the RefCOCO files",
        "single": "images of one object each in class folders (OUT/zeroshot)",
        "conversations": "scenes with questions and answers in LLaVA's layout (OUT/llava); val gets questions too",
        "questions": "most objects that a training conversation asks the name of, and most that it asks the place of",
        "coordinates": f"how conversations write places: {', '.join(COORDINATES)} (0 to 1, 0 to 1000, 0 to bins - 1)",
        "bins": "bins a side, for --coordinates bins",
        "masks": "write the mask of each region of a training scene too, to prompt with it",
        "shard_size": "scenes a training shard",
    },
    "categories": {
        "sprites": f"what scenes are composed of: {', '.join(SPRITES)} (emoji need Debian's fonts-noto-color-emoji)",
        "num_categories": "how many categories of the sprites",
        "names": f"{', '.join(NAMES)}: a made-up word for each category tells nothing of what it shows",
        "caption_only": "how many categories have no box in training and occur in captions only",
        "caption_only_words": f"{', '.join(WORDS)}: whether their names may share words with other names",
        "caption_only_in_detection": "detection and grounding scenes show them too, without boxes",
        "tail": "Zipf's exponent of the frequencies: 0 for equal ones, 1 for 1, 1/2, 1/3, ...",
        "frequency_rule": "LVIS's r, c, f: lvis (10 and 100 training images) or shares (by rank, for small worlds)",
    },
    "looks": {
        "size": "side of a scene in pixels",
        "min_objects": "fewest objects a scene",
        "max_objects": "most objects a scene",
        "twin_share": "share of the scenes made with two objects of one category",
        "expression_share": "share of the objects that get a relational expression as a further region of train",
        "min_side": "longer side of the smallest objects, as a share of the scene's side",
        "max_side": "longer side of the largest objects",
        "max_iou": "largest IoU of two boxes",
        "max_covered": "largest share of a box that another one covers",
        "rotation": "objects are turned by up to so many degrees",
        "tint": "by how much of 255 colours are shifted",
        "background": "plain or textured",
        "quality": "of the JPEGs, 1 to 95",
        "seed": "another seed gives another world",
    },
}
"""Fields of `WorldSpec` that the command takes, as --field-name."""
NONE = {"num_categories": "all", "single": "as many as val"}
"""What the default None of a field means."""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloc.scenes",
        description="Render a world of scenes: training shards, and evaluation files in the layouts of COCO, LVIS, "
        "RefCOCO and LLaVA. Equal parameters give equal files; a world that is there is left alone. Rendered scenes "
        "show that methods work; they say nothing about photographs.",
        epilog="(in brackets: the value of the preset quickstart)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/scenes"), help="folder to make, a data root (data/scenes)"
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default=PRESETS[0],
        help="start from this world, and change what other flags say. quickstart: 40,000 scenes of coloured shapes; "
        "detection: 24 boxed and 8 caption-only categories in folders for detection, grounding and pairs",
    )
    parser.add_argument("--look", type=Path, metavar="FILE.png", help="draw some scenes with boxes and names; no world")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes (2)")
    usual = WorldSpec()
    kinds = {field.name: field.type for field in fields(WorldSpec)}
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title)
        for name, text in flags.items():
            value, flag = getattr(usual, name), f"--{name.replace('_', '-')}"
            shown = f"{text} ({NONE.get(name, 'none') if value is None else value})"
            if kinds[name] == "bool":
                group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=shown)
            else:
                reader = {"str": str, "float": float}.get(str(kinds[name]), int)
                group.add_argument(flag, type=reader, default=None, help=shown, metavar=name.upper())
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    args = vars(_make_parser().parse_args(arguments))
    return command.run(lambda: _make(args), command.GOES_ON)


def _make(args: dict[str, Any]) -> None:
    out, workers, start, look = (args.pop(name) for name in ("out", "workers", "preset", "look"))
    spec = replace(make_preset(start), **{name: value for name, value in args.items() if value is not None})
    if look is not None:
        write_sheet(spec, look)
        print(f"{look}: scenes with boxes and names (red: caption-only categories)")
        return
    ensure_scenes(out, spec, workers)
    print(f"{spec.sprites} with {spec.names} names")
    for part, count in read_world(out)["counts"].items():
        print(f"{part}: " + ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in count.items()))
    if spec.train > 0:
        print(f"training shards: {out / 'train'}")
    print(f"evaluation files (a data root): {out}")


if __name__ == "__main__":
    sys.exit(main())
