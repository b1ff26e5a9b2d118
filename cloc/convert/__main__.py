"""`python -m cloc.convert FORMAT ...`: official layouts in, shards out. Photos are copied byte by byte."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

from cloc import command
from cloc.convert.job import LossError
from cloc.convert.losses import list_notes
from cloc.convert.subcommands import FORMATS
from cloc.data.shards import CARD
from cloc.formats.layouts import list_layouts
from cloc.jobs import count_cores


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloc.convert",
        description=textwrap.fill(
            "Turn an official data set into WebDataset shards with a dataset.json card. Photos are copied byte by "
            "byte; what cannot be used is left out and counted by reason, and more than a tenth of the boxes for one "
            "reason ends with that line. Equal input gives equal bytes, whatever the number of processes. An "
            "interrupted conversion goes on with the same command.",
            width=100,
        ),
        epilog=list_layouts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, row in FORMATS.items():
        sub = commands.add_parser(name, help=row.help, description=row.help)
        row.add_to(sub)
        sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
        sub.add_argument("--shard-size", type=int, default=1000, help="samples a shard (default: %(default)s)")
        sub.add_argument(
            "--allow-losses",
            action="store_true",
            help="finish although more than a tenth of the boxes or images is lost for one reason",
        )
        sub.add_argument("--licence", help="text for the card (default: as the annotation file says)")
        sub.add_argument(
            "--workers", type=int, default=count_cores(), help="processes (default: the cores, %(default)s)"
        )
    return parser


def describe_card(card: dict[str, Any]) -> str:
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
    """Run the command; returns the exit status, see `cloc.command`."""
    given = vars(_make_parser().parse_args(arguments))
    return command.run(lambda: _convert(given), f"what is finished stays; {command.GOES_ON}")


def _convert(given: dict[str, Any]) -> None:
    out, row = given["out"], FORMATS[given.pop("format")]
    whole_before = (out / CARD).is_file()
    if given["licence"] is None:
        del given["licence"]  # the converter knows better
    try:
        card = row.convert(**given)
    except LossError as error:
        print(command.printable(describe_card(error.card)))
        raise
    print(command.printable(describe_card(card)))
    state = "already there, made from the same files" if whole_before else "made"
    print(command.printable(f"{len(card['shards'])} shards, {state}: {out}"))
    for note in list_notes(card):
        print(command.printable(f"note: {note}"))


if __name__ == "__main__":
    sys.exit(main())
