"""One list of the layouts that are read: how a file is recognised, and which converter takes it.

A reader that meets another layout than its own adds `describe_other_layout` to its message. Only the first megabyte of
a file is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = 1 << 20


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        name: what it is, for messages.
        takes: what the reader of it takes, for the list.
        marks: names that stand in such a file, all of them.
        command: what reads it, behind `python -m cloc.convert`; empty where nothing does.
        without: names that do not stand in it.
    """

    name: str
    takes: str
    marks: tuple[str, ...]
    command: str
    without: tuple[str, ...] = ()


LAYOUTS = (
    Layout(
        "a table or lines of GRIT",
        "Parquet or JSON lines with key, caption, noun_chunks, ref_exps; boxes as corners of 0 to 1",
        ("noun_chunks",),
        "grit --rows FILE",
    ),
    Layout(
        "rows of FineHARD",
        "a JSON list, JSON lines or Parquet with f_path, caption, bbox_info; boxes as corners of 0 to 1",
        ("bbox_info",),
        "finehard --rows FILE",
    ),
    Layout(
        "LLaVA's conversations",
        "a JSON list or JSON lines with image (or image_path, or images with one) and conversations from human and gpt",
        ("conversations",),
        "llava --conversations FILE",
    ),
    Layout(
        "conversations of another layout (messages)",
        "turns must be `conversations` with `from` (human, gpt) and `value`",
        ("messages", "role", "content"),
        "",
    ),
    Layout(
        "ODVG's JSON lines",
        "JSON lines with filename, width, height and detection or grounding; boxes as corners in pixels",
        ("filename", "instances"),
        "odvg --annotations FILE",
    ),
    Layout(
        "ODVG's JSON lines",
        "the same",
        ("filename", "grounding"),
        "odvg --annotations FILE",
    ),
    Layout(
        "GoldG (MDETR's JSON)",
        "COCO's JSON with tokens_positive; boxes as x, y, width, height in pixels",
        ("tokens_positive", "annotations"),
        "goldg --annotations FILE",
    ),
    Layout(
        "an expression file of RefCOCO (REC_*.jsonl)",
        "ROOT/annotations_only/REC_*.jsonl, or ROOT/refcoco/refs(unc).p with instances.json",
        ("expression", "img_path"),
        "refcoco --root FOLDER",
    ),
    Layout(
        "the refer toolkit's refs",
        "the same",
        ("sentences", "ref_id"),
        "refcoco --root FOLDER",
    ),
    Layout(
        "Visual Genome's regions",
        "ROOT/image_data.json with region_descriptions.json or objects.json; x, y, width, height in pixels",
        ("regions", "phrase", "region_id"),
        "visual_genome --root FOLDER",
    ),
    Layout(
        "Visual Genome's objects",
        "the same",
        ("objects", "object_id"),
        "visual_genome --root FOLDER --regions objects",
    ),
    Layout("COCO's panoptic segments", "", ("segments_info",), ""),
    Layout(
        "an LVIS annotation file",
        "COCO's JSON with neg_category_ids and frequencies",
        ("images", "neg_category_ids"),
        "lvis --annotations FILE",
    ),
    Layout(
        "a COCO captions file",
        "a JSON with images and annotations that have image_id and caption",
        ("annotations", "caption"),
        "coco --captions FILE --instances INSTANCES",
        ("bbox", "tokens_positive"),
    ),
    Layout(
        "a COCO instances file",
        "a JSON with images (id, file_name, width, height), categories and annotations (image_id, category_id, bbox as "
        "x, y, width, height in pixels)",
        ("annotations", "bbox", "category_id", "images"),
        "coco --instances FILE",
    ),
    Layout(
        "a COCO results file",
        "a list of detections: benchmarks/run.py --predictions FILE scores it",
        ("image_id", "bbox", "score"),
        "",
        ("images",),
    ),
)
"""The first that fits a file is its layout."""


def find_layout(file: Path) -> Layout | None:
    """Which layout a file has, told by the names in its first megabyte; None where none fits or it cannot be read."""
    try:
        with Path(file).open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        return None
    if head[:4] == b"PAR1":
        return _find_layout_with(_read_columns(Path(file)))
    names = {name.decode("ascii") for name in re.findall(rb'"(\w{1,40})"\s*:', head)}
    return _find_layout_with(names)


def describe_other_layout(file: Path, converter: str = "") -> str:
    """The end of a message about a file of the wrong layout: what it looks like, and what takes that; may be empty.

    Args:
        file: that could not be used.
        converter: that could not use it.
    """
    found = find_layout(file)
    if found is None or (converter and found.command.split(" ")[0] == converter):
        return ""
    takes = f": python -m cloc.convert {found.command}" if found.command else ", which no converter takes"
    return f"; it looks like {found.name}{takes}"


def list_layouts() -> str:
    """The list as text: each converter, and what it takes."""
    lines = ["What each takes (a file of another layout is told which of these it is for):"]
    for one in LAYOUTS:
        if one.takes and one.command and one.takes != "the same":
            lines.append(f"  {one.command}\n      {one.name}: {one.takes}")
    lines.append(
        "  pairs --images FOLDER\n      photos KEY.jpg (png, webp) with KEY.txt, or img2dataset's tars or Parquet; "
        "tars of pairs train as they are, too\n  flickr30k_entities --root FOLDER\n      Sentences/ID.txt, "
        "Annotations/ID.xml and train.txt; boxes as corners in pixels, counted from 1\nPhotos lie in folders, "
        "tars or Parquet (image as bytes or as a struct with bytes; its name in path, file_name, key or id)."
    )
    return "\n".join(lines)


def _find_layout_with(names: set[str]) -> Layout | None:
    fits = (one for one in LAYOUTS if names.issuperset(one.marks) and not names.intersection(one.without))
    return next(fits, None)


def _read_columns(file: Path) -> set[str]:
    import pyarrow.parquet as parquet

    try:
        return set(parquet.read_schema(file).names)
    except (ValueError, OSError):
        return set()
