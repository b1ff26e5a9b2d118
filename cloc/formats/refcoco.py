"""RefCOCO, RefCOCO+ and RefCOCOg: the refer toolkit's layout, and the evaluation splits as REC_*.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloc.files import is_text, read_json_lines
from cloc.formats.annotated import (
    AnnotatedImage,
    Annotations,
    check_box,
    is_rendered,
    load_json,
    read_categories,
    read_image_size,
)
from cloc.formats.frames import XYXY, FrameWatch
from cloc.formats.numbers import parse_four, parse_whole
from cloc.formats.photos import strip_root
from cloc.formats.plain_pickle import load_plain_pickle
from cloc.formats.sources import PhotoFolders

PUBLISHERS = ("unc", "umd", "google")
"""refs(PUBLISHER).p: where a folder holds several, the first of these is read, as the papers do."""
USUAL = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
"""Whose splits are meant where nothing is said. Google's RefCOCOg val, for one, holds other images."""

_SPLITS = ("train", "val", "testA", "testB", "test")


@dataclass(frozen=True)
class Expression:
    """One referring expression.

    Attributes:
        sent_id, ref_id: as in the file; `ref_id` is -1 in the jsonl layout, which has none.
        image_id: as in the file.
        annotation_id: the referent among the image's annotations, None in the jsonl layout.
        text: as in the file.
        box_xyxy: the referent, pixels.
        split: val, testA, testB, test or train.
        kind: rendered scenes only: `name` or `relational`.
    """

    sent_id: int
    ref_id: int
    image_id: int
    annotation_id: int | None
    text: str
    box_xyxy: tuple[float, ...]
    split: str
    kind: str | None


@dataclass(frozen=True, eq=False)
class ReferringSet:
    """The expressions of one split, and the images that they speak of.

    Attributes:
        name: refcoco, refcoco+ or refcocog.
        split: which.
        expressions: in the order of the file.
        images: by id, those with an expression; with all annotations, or none in the jsonl layout.
        rendered: whether the images are rendered scenes.
        file: where the expressions came from.
        dropped: expressions and annotations left out, by reason.
    """

    name: str
    split: str
    expressions: tuple[Expression, ...]
    images: dict[int, AnnotatedImage]
    rendered: bool
    file: Path
    dropped: Counter[str] = field(default_factory=Counter)


def refcoco_splits(root: Path, dataset: str) -> tuple[str, ...]:
    """The splits of a data set that are there, in the order of the files; empty where there is no such data set.

    Args:
        root: `<data root>/refcoco`.
        dataset: refcoco, refcoco+ or refcocog.
    """
    refs = _find_refs_file(Path(root), dataset)
    if refs is not None:
        return tuple(dict.fromkeys(ref["split"] for ref in _load_refs(refs) if is_text(ref.get("split"))))
    return tuple(file.stem.rsplit("_", 1)[1] for file in _find_jsonl_files(Path(root), dataset))


def refcoco_name(root: Path, dataset: str) -> str:
    """The data set's name as figures carry it: with its publisher where that is not the usual one.

    Args:
        root: `<data root>/refcoco`.
        dataset: refcoco, refcoco+ or refcocog; it is there (`refcoco_splits`).
    """
    refs = _find_refs_file(Path(root), dataset)
    publisher = _find_jsonl_files(Path(root), dataset)[0].name.split("_")[2] if refs is None else refs.stem[5:-1]
    return dataset if publisher == USUAL[dataset] else f"{dataset}-{publisher}"


def read_refcoco(root: Path, dataset: str, split: str) -> ReferringSet:
    """Read one split: refs(*).json or refs(*).p with instances.json, else `annotations_only/REC_*.jsonl`.

    Photos are looked for in `root/images/mscoco/images/train2014` and in `<data root>/coco/train2014` by the rule of
    `Photos`; they need not be there.

    Args:
        root: `<data root>/refcoco`.
        dataset: refcoco, refcoco+ or refcocog.
        split: val, testA, testB, test or train.

    Raises:
        ValueError: the data set or the split is not there, or a file is not what it should be.
    """
    root = Path(root)
    splits = refcoco_splits(root, dataset)
    if not splits:
        raise ValueError(
            f"{dataset}: expected {root / dataset}/refs(*).p with instances.json, or {root}/annotations_only/"
            f"REC_{dataset}_*.jsonl; found neither. Put the files of the refer toolkit there, or give another --data"
        )
    if split not in splits:
        raise ValueError(f"{dataset}: expected one of the splits {', '.join(splits)}, got {split!r}")
    refs = _find_refs_file(root, dataset)
    if refs is not None:
        return _read_refer(root, dataset, split, refs)
    file = next(f for f in _find_jsonl_files(root, dataset) if f.stem.endswith(f"_{split}"))
    return _read_jsonl(root, dataset, split, file)


def _find_refs_file(root: Path, dataset: str) -> Path | None:
    folder = root / dataset
    for publisher in PUBLISHERS:
        for ending in ("json", "p"):
            path = folder / f"refs({publisher}).{ending}"
            if path.is_file():
                return path
    return None


def _find_jsonl_files(root: Path, dataset: str) -> list[Path]:
    folder = root / "annotations_only"
    candidates = [folder / f"REC_{dataset}_{publisher}_{split}.jsonl" for publisher in PUBLISHERS for split in _SPLITS]
    found = [file for file in candidates if file.is_file()]
    return [file for file in found if file.name.split("_")[2] == found[0].name.split("_")[2]]


def _load_refs(file: Path) -> list[Mapping[str, Any]]:
    what = "the refer toolkit's list of refs"
    refs = load_json(file, what) if file.suffix == ".json" else load_plain_pickle(file, what)
    found = [ref for ref in refs if isinstance(ref, dict) and "sentences" in ref] if isinstance(refs, list) else []
    if not found:
        raise ValueError(f"{file}: expected {what} (dicts with 'sentences'), got {type(refs).__name__}")
    return found


def _open_photos(root: Path) -> PhotoFolders:
    return PhotoFolders([root / "images/mscoco/images/train2014", root.parent / "coco/train2014"])


def _read_refer(root: Path, dataset: str, split: str, file: Path) -> ReferringSet:
    instances = file.with_name("instances.json")
    content = load_json(instances, "the refer toolkit's instances.json", ("images", "annotations", "categories"))
    refs = [ref for ref in _load_refs(file) if ref.get("split") == split]
    wanted = {parse_whole(ref.get("image_id")) for ref in refs}
    dropped, sizes, names = Counter[str](), dict[int, tuple[int, int]](), dict[int, str]()
    for index, entry in enumerate(content["images"]):
        try:
            image_id, width, height = read_image_size(entry, index, instances)
        except ValueError:
            dropped["bad_image_entry"] += 1
            continue
        if image_id in wanted and not is_text(entry.get("file_name")):
            dropped["bad_image_entry"] += 1
        elif image_id in wanted:
            sizes[image_id], names[image_id] = (width, height), entry["file_name"]
    ours = [entry for entry in content["annotations"] if isinstance(entry, dict) and _is_of_one(entry, sizes)]
    watch = FrameWatch(instances)
    annotations = Annotations(ours, sizes, read_categories(content, instances, dropped), watch)
    watch.refuse(annotations.dropped)
    photos = _open_photos(root)
    images = {
        image_id: AnnotatedImage(
            image_id,
            photos.path(strip_root(name), where=str(instances)),
            *sizes[image_id],
            **annotations.of(image_id),
            file_name=name,
        )
        for image_id, name in names.items()
    }
    referred = {(parse_whole(entry.get("image_id")), parse_whole(entry.get("id"))) for entry in ours}
    expressions = _make_expressions(refs, images, referred, dropped)
    rendered = is_rendered(content)
    spoken_of = {expression.image_id for expression in expressions}
    images = {image_id: image for image_id, image in images.items() if image_id in spoken_of}
    return ReferringSet(dataset, split, expressions, images, rendered, file, annotations.dropped + dropped)


def _is_of_one(entry: Mapping[str, Any], sizes: Mapping[int, tuple[int, int]]) -> bool:
    image_id = entry.get("image_id")
    return (image_id if type(image_id) is int else parse_whole(image_id)) in sizes


def _make_expressions(
    refs: list[Mapping[str, Any]],
    images: Mapping[int, AnnotatedImage],
    told_boxes: set[tuple[int | None, int | None]],
    dropped: Counter[str],
) -> tuple[Expression, ...]:
    found = []
    for ref in refs:
        sentences, ref_id, annotation_id = (
            ref["sentences"],
            parse_whole(ref.get("ref_id")),
            parse_whole(ref.get("ann_id")),
        )
        if not isinstance(sentences, (list, tuple)) or ref_id is None:
            dropped["bad_expression"] += 1
            continue
        image = images.get(parse_whole(ref.get("image_id")))
        rows = (image.annotation_ids == annotation_id).nonzero()[0] if image and annotation_id is not None else ()
        for sentence in sentences:
            fields = sentence if isinstance(sentence, dict) else {}
            text, number = fields.get("sent", ""), parse_whole(fields.get("sent_id"))
            if not is_text(text) or number is None:
                dropped["bad_expression"] += 1
            elif image is None:
                dropped["expression_of_unknown_image"] += 1
            elif len(rows) == 0:
                there = (image.image_id, annotation_id) in told_boxes
                dropped["expression_of_unusable_box" if there else "expression_of_unknown_annotation"] += 1
            elif not text.strip():
                dropped["empty_expression"] += 1
            else:
                found.append(
                    Expression(
                        sent_id=number,
                        ref_id=ref_id,
                        image_id=image.image_id,
                        annotation_id=annotation_id,
                        text=text,
                        box_xyxy=tuple(image.boxes_xyxy[rows[0]].tolist()),
                        split=ref["split"],
                        kind=fields["kind"] if is_text(fields.get("kind")) else None,
                    )
                )
    return tuple(found)


def _read_jsonl(root: Path, dataset: str, split: str, file: Path) -> ReferringSet:
    expressions, images, dropped = [], dict[int, AnnotatedImage](), Counter[str]()
    empty, watch = Annotations((), {}, ()).of(0), FrameWatch(file, XYXY)
    first_bad, photos = 0, _open_photos(root)
    for number, row in read_json_lines(file, "expressions", dropped):
        parts = _read_row(row)
        if parts is None:
            dropped["bad_row"] += 1
            first_bad = first_bad or number
            continue
        (width, height, image_id, sent_id), text, photo = parts
        numbers = parse_four(row.get("bbox"))
        if numbers is not None:
            watch.see(numbers, width, height)
        box, reason = check_box(numbers, width, height, xywh=False)
        if reason is not None:
            dropped[reason] += 1
        if box is None or not text.strip():
            dropped["empty_expression"] += box is not None
            continue
        if image_id not in images:
            path = photos.path(strip_root(photo), where=f"{file}:{number}")
            images[image_id] = AnnotatedImage(image_id, path, width, height, **empty, file_name=photo)
        expressions.append(Expression(sent_id, -1, image_id, None, text, box, split, None))
    watch.refuse(dropped)
    if not expressions and dropped["bad_row"]:
        raise ValueError(
            f"{file}:{first_bad or 1}: expected img_path, expression, bbox, width, height, image_id, sent_id in every "
            f"line, found none with them"
        )
    return ReferringSet(dataset, split, tuple(expressions), images, False, file, +dropped)


def _read_row(row: object) -> tuple[list[int], str, str] | None:
    """([width, height, image_id, sent_id], expression, img_path) of a line, None where one is missing or no such."""
    if not isinstance(row, dict):
        return None
    numbers = [parse_whole(row.get(name)) for name in ("width", "height", "image_id", "sent_id")]
    text, photo = row.get("expression"), row.get("img_path")
    if None in numbers or min(numbers[:2]) < 1 or not is_text(text) or not is_text(photo) or not photo.strip():
        return None
    return numbers, text, photo
