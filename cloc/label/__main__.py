"""`python -m cloc.label --shards IN --out OUT --detector NAME`: the command."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

from cloc import command
from cloc.device import find_device
from cloc.jobs import count_cores
from cloc.label.job import Labelled, label
from cloc.label.settings import CAPTION_PROMPT, PRECISIONS, LabelSettings
from cloc.label.table1 import format_table
from cloc.phrases import CHUNKERS, GENERIC_LISTS, LIMIT

DETECTOR = "google/owlv2-large-patch14-finetuned"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloc.label",
        description="Label image-text shards with regions (VESL, CLOC Sec. 4): caption, noun phrases, boxes of an "
        "open-vocabulary detector. Images are copied byte by byte. A job that was killed goes on where it stopped when "
        "the same command is given again; what cannot be used is left out and counted by reason. The output's bytes do "
        "not depend on the number of workers.",
    )
    add = parser.add_argument
    add("--shards", required=True, metavar="IN", help="folder of image-text shards, or a pattern such as 'IN/*.tar'")
    add("--out", type=Path, required=True, metavar="OUT", help="folder to make")
    add("--detector", default=DETECTOR, help="folder or hub name of a zero-shot detector (default: %(default)s)")
    add("--captioner", help="folder or hub name of an image-text-to-text model (default: keep the given captions)")
    add("--caption-prompt", default=CAPTION_PROMPT, help="what the captioner is asked (default: %(default)r)")
    add("--caption-tokens", type=int, default=96, help="longest caption in tokens (default: %(default)s)")
    words = "words that are no part of a phrase: OWLv2's list (the paper's), ours, none (default: %(default)s)"
    add("--generic-words", default="owlv2", choices=GENERIC_LISTS, help=words)
    add("--chunker", default="rules", choices=CHUNKERS, help="who finds the noun phrases (default: %(default)s)")
    add("--phrases", type=int, default=LIMIT, help="first phrases of a caption that are kept (default: %(default)s)")
    add("--score", type=float, default=0.1, help="keep boxes with a confidence above this (default: %(default)s)")
    add("--nms", type=float, default=0.0, help="drop the weaker of two boxes above this IoU; 0 for none (default)")
    add("--max-boxes", type=int, default=0, help="boxes an image at most; 0 for no limit (default)")
    add("--size", type=int, default=448, help="side of the detector's input in pixels (default: %(default)s)")
    add("--batch", type=int, default=8, help="images a forward pass (default: %(default)s)")
    add("--device", choices=("cpu", "cuda"), help="where the models run (default: cuda where there is one)")
    add("--precision", default="fp32", choices=PRECISIONS, help="of the models (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes that hold the models, one thread each (default: %(default)s)")
    add("--ray", metavar="ADDRESS", help="run on Ray: `local`, or a cluster's address (needs `pip install ray`)")
    return parser


def _make_settings(args: argparse.Namespace) -> LabelSettings:
    given = {field.name: getattr(args, field.name) for field in fields(LabelSettings)}
    given["device"] = find_device(args.device or "auto")
    return LabelSettings(**given)


def describe_job(done: Labelled) -> str:
    """What was read, kept and left out, and Table 1, as lines for the console."""
    card = done.card
    dropped = ", ".join(f"{number:,} {why}" for why, number in card["dropped"].items())
    lines = [
        f"read:    {card['read']['samples']:,} samples",
        "kept:    " + ", ".join(f"{number:,} {what}" for what, number in card["counts"].items()),
        f"dropped: {dropped or 'nothing'}",
    ]
    if "detector" in card["labelling"]:
        lines.append(f"input:   {card['labelling']['detector']['input']}")
    if done.resumed:
        lines.append(f"resumed: {done.resumed} shards were finished before")
    if done.seconds["all"]:
        models = sum(done.seconds[name] for name in ("detector", "captioner"))
        lines.append(f"time:    {done.seconds['all']:,.1f} s, {models / done.seconds['all']:.0%} of it in the models")
    return "\n".join([*lines, "", format_table(card["statistics"])])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    args = _make_parser().parse_args(arguments)
    return command.run(lambda: _label(args), f"what is finished stays; {command.GOES_ON}")


def _label(args: argparse.Namespace) -> None:
    if not 1 <= args.workers:
        raise ValueError(f"--workers: expected at least 1, got {args.workers} (this machine has {count_cores()} cores)")
    runner = None
    if args.ray is not None:
        from cloc.label.on_ray import run_ray

        runner = partial(run_ray, args.ray, args.workers)
    try:
        done = label(args.shards, args.out, _make_settings(args), args.workers, runner)
    except OSError as error:
        raise ValueError(
            f"{command.describe_error(error)}; put it right and run the same command again: what is finished stays"
        ) from error
    print(command.printable(describe_job(done)))
    print(command.printable(f"{len(done.card['shards'])} shards: {args.out}"))


if __name__ == "__main__":
    sys.exit(main())
