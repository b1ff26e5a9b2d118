"""A folder in the refer toolkit's layout (`refs(*).p` and `instances.json`) as grounding annotations.

Its reader belongs to the kit, whose front door loads torch; the other kinds of annotation need neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def refer_folder(path: Path) -> Path | None:
    """The folder meant by a path: itself, or that of a refs file in it; None where it is no such layout."""
    folder = path.parent if path.name.startswith("refs(") else path
    return folder if folder.is_dir() and (folder / "instances.json").is_file() else None


def refer_lines(folder: Path, split: str | None) -> list[dict[str, Any]]:
    """The expressions of one split as lines of image_id, sent_id, bbox (xyxy pixels), split.

    Args:
        folder: such as refcoco/refcoco+.
        split: which; None where the folder holds but one beside train.

    Raises:
        ValueError: there is no such split, or several and none was named.
    """
    from cloc.formats.refcoco import read_refcoco, refcoco_splits

    there = [name for name in refcoco_splits(folder.parent, folder.name) if name != "train"]
    if split is None and len(there) == 1:
        split = there[0]
    if split not in there:
        raise ValueError(f"--split: {folder} holds {', '.join(there) or 'no split'}; got {split}; name one of them")
    dataset = read_refcoco(folder.parent, folder.name, split)
    rendered = {"rendered": True} if dataset.rendered else {}
    return [
        {"image_id": one.image_id, "sent_id": one.sent_id, "bbox": list(one.box_xyxy), "split": one.split}
        | {"width": dataset.images[one.image_id].width, "height": dataset.images[one.image_id].height, **rendered}
        for one in dataset.expressions
    ]
