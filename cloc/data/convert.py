"""`python -m cloc.data.convert FORMAT ...`: official layouts in, shards out. Photos are copied byte by byte.

Each format is a row of `FORMATS`: its arguments and the function that converts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.data.convert_coco import convert_coco
from cloc.data.convert_grit import convert_grit
from cloc.data.convert_lvis import convert_lvis
from cloc.data.convert_odvg import convert_odvg
from cloc.data.convert_pairs import convert_pairs
from cloc.data.convert_refcoco import convert_refcoco
from cloc.data.formats.grit import PHRASES
from cloc.data.shards import CARD


@dataclass(frozen=True)
class _Format:
    """One subcommand: a line of help, its further arguments, and what it does with them."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    convert: Callable[[argparse.Namespace], dict[str, Any]]


def _coco_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
    parser.add_argument("--instances", type=Path, required=True, metavar="FILE", help="instances_*.json")
    parser.add_argument(
        "--captions", type=Path, metavar="FILE", help="captions_*.json; without it no image has a caption"
    )
    _name_argument(parser, "coco")


def _run_coco(args: argparse.Namespace) -> dict[str, Any]:
    return convert_coco(args.images, args.instances, args.out, args.captions, args.name, args.shard_size, args.licence)


def _lvis_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        nargs="+",
        metavar="DIR",
        help="folders of the photos: COCO's train2017, val2017, or both",
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="lvis_v1_*.json")
    _name_argument(parser, "lvis")


def _run_lvis(args: argparse.Namespace) -> dict[str, Any]:
    return convert_lvis(args.images, args.annotations, args.out, args.name, args.shard_size, args.licence)


def _refcoco_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that holds refcoco/refs(unc).p and instances.json, or annotations_only/REC_*.jsonl",
    )
    parser.add_argument("--dataset", default="refcoco", choices=("refcoco", "refcoco+", "refcocog"))
    parser.add_argument("--split", default="train", help="train, val, testA, testB or test (default: %(default)s)")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the photos (default: ROOT/images/mscoco/images/train2014, then ROOT/../coco/train2014)",
    )
    parser.add_argument(
        "--allow-evaluation-split", action="store_true", help="convert a split that benchmarks are scored on"
    )


def _run_refcoco(args: argparse.Namespace) -> dict[str, Any]:
    return convert_refcoco(
        args.root,
        args.dataset,
        args.out,
        args.split,
        args.images,
        args.allow_evaluation_split,
        args.shard_size,
        args.licence,
    )


def _odvg_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="*.jsonl, one image a line")
    _name_argument(parser, "odvg")


def _run_odvg(args: argparse.Namespace) -> dict[str, Any]:
    return convert_odvg(args.images, args.annotations, args.out, args.name, args.shard_size, args.licence)


def _grit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder with KEY.jpg, or KEY[:5]/KEY.jpg"
    )
    parser.add_argument(
        "--rows", type=Path, required=True, nargs="+", metavar="FILE", help=".parquet files, or JSON lines"
    )
    parser.add_argument(
        "--phrases", default="both", choices=("both", *PHRASES), help="which boxes to take (default: %(default)s)"
    )
    _name_argument(parser, "grit")


def _run_grit(args: argparse.Namespace) -> dict[str, Any]:
    return convert_grit(args.images, args.rows, args.out, args.phrases, args.name, args.shard_size, args.licence)


def _pairs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of KEY.jpg and KEY.txt, or of tars of them"
    )
    _name_argument(parser, "pairs")


def _run_pairs(args: argparse.Namespace) -> dict[str, Any]:
    return convert_pairs(args.images, args.out, args.name, args.shard_size, args.licence)


def _name_argument(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--name", default=default, help="name of the set in its card (default: %(default)s)")


FORMATS = {
    "coco": _Format("COCO instances and captions, 2014 or 2017", _coco_arguments, _run_coco),
    "lvis": _Format("LVIS v1 or v0.5, as detection data", _lvis_arguments, _run_lvis),
    "odvg": _Format("ODVG JSON lines (Grounding DINO): detection or grounding rows", _odvg_arguments, _run_odvg),
    "grit": _Format("GRIT (Kosmos-2): captions with boxes for their phrases", _grit_arguments, _run_grit),
    "pairs": _Format("photos with a text beside each, or img2dataset's tars", _pairs_arguments, _run_pairs),
    "refcoco": _Format("RefCOCO, RefCOCO+ or RefCOCOg: boxes with expressions", _refcoco_arguments, _run_refcoco),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloc.data.convert",
        description="Turn an official data set into WebDataset shards with a dataset.json card. Photos are copied byte "
        "by byte; what cannot be used is left out and counted by reason. Equal input gives equal bytes.",
    )
    commands = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, row in FORMATS.items():
        sub = commands.add_parser(name, help=row.help, description=row.help)
        row.arguments(sub)
        sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
        sub.add_argument("--shard-size", type=int, default=1000, help="samples a shard (default: %(default)s)")
        sub.add_argument("--licence", default="as the annotation file says", help="text for the card")
    return parser


def report(card: dict[str, Any]) -> str:
    """What was read, kept and left out, as lines for the console."""
    read, kept = card.get("read", {}), card["counts"]
    lines = [
        "read:    " + ", ".join(f"{number:,} {what}" for what, number in read.items()),
        "kept:    "
        + ", ".join(f"{number:,} {what}" for what, number in kept.items())
        + f" ({kept['samples'] - kept['captions']:,} samples without a caption)",
        "dropped: " + (", ".join(f"{number:,} {why}" for why, number in card["dropped"].items()) or "nothing"),
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 for a mistake in the arguments or the input."""
    args = _parser().parse_args(arguments)
    whole_before = (args.out / CARD).is_file()
    try:
        card = FORMATS[args.format].convert(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(card))
    state = "already there, made from the same files" if whole_before else "made"
    print(f"{len(card['shards'])} shards, {state}: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
