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
    parser.add_argument("--name", default="coco", help="name of the set in its card (default: %(default)s)")


def _run_coco(args: argparse.Namespace) -> dict[str, Any]:
    return convert_coco(args.images, args.instances, args.out, args.captions, args.name, args.shard_size, args.licence)


FORMATS = {"coco": _Format("COCO instances and captions, 2014 or 2017", _coco_arguments, _run_coco)}


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
