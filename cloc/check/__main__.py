"""`python -m cloc.check DATASET`: what is in a set and what is wrong with it, in words and as a contact sheet."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cloc import command
from cloc.check import Findings, Published, draw_contact_sheet, examine, find_published, read_evaluations, write_page
from cloc.check.contact_sheet import sample_evenly
from cloc.data.tables import open_samples

_SHOWN_CLASHES = 3


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloc.check",
        description="Look at a set before anything is trained on it: counts beside the published ones, boxes outside "
        "their image, duplicates, empty phrases, categories that are numbered differently, photos that also stand in "
        "an evaluation split, licences; and a contact sheet with boxes and phrases drawn in.",
        epilog="Ends with 0 where nothing grave was found, 1 where something was, 2 for a mistake in the arguments.",
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of shards, or Parquet")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="EVAL",
        help="evaluation splits: COCO's or LVIS's .json, refer's refs(*).p or its root, REC_*.jsonl, folders of shards",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write check.json, sheet.png and sheet.html there")
    parser.add_argument("--show", type=int, default=24, help="samples on the contact sheet (default: %(default)s)")
    parser.add_argument("--as", dest="known_as", metavar="NAME", help="compare with the published figures of this set")
    return parser


def compare_published(found: Findings, name: str, published: Sequence[Published]) -> list[str]:
    """A line for each published figure, with its source and whether the set agrees."""
    counts: dict[str, float] = dict(found.counts)
    counts["regions an image"] = counts["regions"] / max(1, counts["different images"])
    if not published:
        return [f"published: no figure is known for {name!r} (--as NAME compares with another set)"]
    return [figure.line(counts[figure.what]) for figure in published]


def describe(found: Findings, title: str, comparison: Sequence[str]) -> str:
    """The findings as lines for the console."""
    lines = [title, "counts:    " + ", ".join(f"{number:,} {what}" for what, number in found.counts.items())]
    lines += comparison
    lines.append("licences:  " + "; ".join(f"{name} ({number:,})" for name, number in found.licences.most_common()))
    lines.append("faults:    " + ("" if found.faults else "none"))
    for name, number in sorted(found.faults.items()):
        lines.append(f"  {number:10,}  {name} (such as {', '.join(found.examples[name][:3])})")
    for name, how in found.overlaps.items():
        parts = ", ".join(f"{number:,} by {kind}" for kind, number in how.items())
        lines.append(f"evaluation split {name}: {parts or 'none of its photos is here'}")
    for name, clashes in found.clashes.items():
        shown = ", ".join(f"{i} is {here!r} here and {there!r} there" for i, here, there in clashes[:_SHOWN_CLASHES])
        lines.append(f"categories of {name}: {len(clashes):,} ids mean something else ({shown})")
    for name in found.other_vocabularies:
        lines.append(f"categories of {name}: another vocabulary; match by name, never by id")
    lines.append("grave:     " + ("; ".join(found.grave) or "nothing"))
    return "\n".join(lines)


def check(
    dataset: Path,
    against: Sequence[Path] = (),
    out: Path | None = None,
    show: int = 24,
    known_as: str | None = None,
    progress: bool = True,
) -> tuple[Findings, str]:
    """Examine a set and, where `out` is given, write `check.json`, `sheet.png` and `sheet.html`.

    Args:
        dataset: folder of shards, a pattern of them, or Parquet.
        against: evaluation splits, as `read_evaluations` takes them.
        out: folder to write to; files of these names in it are replaced.
        show: samples on the contact sheet, from all over the set.
        known_as: name under which published figures are looked up; without it the card decides.
        progress: show a bar.

    Returns:
        The findings, and the report as text.

    Raises:
        ValueError: an input is missing or is not what it should be.
    """
    if show < 1:
        raise ValueError(f"--show: expected at least 1 sample, got {show}")
    samples = open_samples(dataset)
    name, figures = find_published(samples.card, known_as)
    found = examine(samples, [split for path in against for split in read_evaluations(path)], progress)
    title = f"{dataset}: {(samples.card or {}).get('name', 'no card')}"
    report = describe(found, title, compare_published(found, name, figures))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "check.json").write_text(json.dumps(found.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
        shown = list(sample_evenly(samples, show))
        draw_contact_sheet(shown).save(out / "sheet.png")
        write_page(out / "sheet.html", str((samples.card or {}).get("name", dataset.name)), report, shown)
    return found, report


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where something grave was found, else see `cloc.command`."""
    args = _make_parser().parse_args(arguments)
    return command.run(lambda: _check(args))


def _check(args: argparse.Namespace) -> int:
    found, report = check(args.dataset, args.against, args.out, args.show, args.known_as)
    print(command.printable(report))
    if args.out is not None:
        print(f"look at {args.out / 'sheet.html'} or {args.out / 'sheet.png'}")
    return 1 if found.grave else 0


if __name__ == "__main__":
    sys.exit(main())
