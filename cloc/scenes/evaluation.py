"""Evaluation files of a world in the official layouts of COCO, LVIS and RefCOCO, read by the readers of the real ones.

They carry a few fields more: `info.rendered`, `caption_only` on each category, `kind` on each RefCOCO sentence.

Images of one object each lie in class folders, the layout of torchvision's ImageFolder, as the readers of real
classification sets take it: `zeroshot/single/test/CLASS/`, numbered by category, the names in `classnames.txt`.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.boxes import xyxy_to_xywh
from cloc.data.shards.card import CARD
from cloc.scenes.render import Scene, render_scene
from cloc.scenes.training import LICENCE, encode_jpeg
from cloc.scenes.world import WorldSpec, list_categories, make_scene_rng

_NEGATIVES = 8
_SENTENCES = 2
_CHANCE_STREAM = 1 << 32


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _make_info(what: str) -> dict[str, Any]:
    return {"description": f"rendered scenes of this kit, {what}", "version": "1", "rendered": True}


def _list_entries(spec: WorldSpec) -> list[dict[str, Any]]:
    known = list_categories(spec)
    return [{"id": c.id, "name": c.name, "supercategory": "sprite", "caption_only": c.caption_only} for c in known]


def _make_lvis_category(entry: dict[str, Any]) -> dict[str, Any]:
    """A category of the training card as LVIS writes one."""
    same = ("id", "name", "frequency", "image_count", "instance_count", "caption_only")
    return {
        **{field: entry[field] for field in same},
        "synset": f"{entry['name'].replace(' ', '_')}.n.01",
        "def": entry["definition"],
        "synonyms": [entry["name"]],
    }


def _make_image(scene: Scene, file_name: str, **more: Any) -> dict[str, Any]:
    side = scene.image.width
    return {"id": scene.index + 1, "file_name": file_name, "width": side, "height": side, "license": 1, **more}


def _make_annotations(scene: Scene, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of all objects of a scene: visible boxes, visible areas, no outlines."""
    boxes_xywh = xyxy_to_xywh([thing.box_xyxy for thing in scene.objects]).tolist()
    return [
        {
            "id": first_id + number,
            "image_id": scene.index + 1,
            "category_id": thing.category_id,
            "bbox": box,
            "area": thing.area,
            "iscrowd": 0,
            "segmentation": [],
        }
        for number, (thing, box) in enumerate(zip(scene.objects, boxes_xywh, strict=True))
    ]


def _render_split(spec: WorldSpec, split: str, count: int, folder: Path, name: str, progress: bool) -> Iterator[Scene]:
    """Render a split, write its images as `folder/name` (a %-pattern of the image id), and give the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(count), desc=f"rendering {split} scenes", unit="scene", disable=not progress):
        scene = render_scene(spec, index, split)
        (folder / (name % (index + 1))).write_bytes(encode_jpeg(scene.image, spec.quality))
        yield scene


def write_coco_and_lvis(
    spec: WorldSpec, root: Path, listed: list[dict[str, Any]], progress: bool = True
) -> Counter[str]:
    """Write `coco/val2017`, its instances and captions, and `lvis/lvis_v1_val.json` on the same images.

    Args:
        spec: the world.
        root: data root to write into.
        listed: the training card's categories, for LVIS's frequencies and counts.
        progress: show a bar.

    Returns:
        Images and boxes written.
    """
    images, lvis_images, annotations, captions = [], [], [], []
    ids = [entry["id"] for entry in listed]
    for scene in _render_split(spec, "val", spec.val, root / "coco/val2017", "%012d.jpg", progress):
        file_name = f"{scene.index + 1:012d}.jpg"
        images.append(_make_image(scene, file_name))
        annotations += _make_annotations(scene, len(annotations) + 1)
        captions.append({"id": scene.index + 1, "image_id": scene.index + 1, "caption": scene.caption})
        present = {thing.category_id for thing in scene.objects}
        absent = [number for number in ids if number not in present]
        rng = make_scene_rng(
            spec, "val", scene.index + _CHANCE_STREAM
        )  # the scene's own stream belongs to the renderer
        chosen = rng.permutation(len(absent))[:_NEGATIVES].tolist()
        negatives = sorted(absent[i] for i in chosen)
        lvis_images.append(
            _make_image(
                scene,
                file_name,
                coco_url=f"val2017/{file_name}",
                neg_category_ids=negatives,
                not_exhaustive_category_ids=[],
            )
        )
    licences = [{"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}]
    head = {"info": _make_info("layout of COCO 2017"), "licenses": licences, "images": images}
    folder = root / "coco/annotations"
    _write_json(
        folder / "instances_val2017.json", {**head, "annotations": annotations, "categories": _list_entries(spec)}
    )
    _write_json(folder / "captions_val2017.json", {**head, "annotations": captions})
    lvis = {
        "info": _make_info("layout of LVIS v1"),
        "licenses": licences,
        "images": lvis_images,
        "annotations": [{k: v for k, v in entry.items() if k != "iscrowd"} for entry in annotations],
        "categories": [_make_lvis_category(entry) for entry in listed],
    }
    _write_json(root / "lvis/lvis_v1_val.json", lvis)
    return Counter(images=len(images), boxes=len(annotations))


def choose_split(index: int) -> str:
    """Of every four RefCOCO scenes two are `val`, one is `testA`, one `testB`."""
    return ("val", "testA", "val", "testB")[index % 4]


def write_refcoco(spec: WorldSpec, root: Path, progress: bool = True) -> Counter[str]:
    """Write `refcoco/refcoco` in the layout of the refer toolkit, with photos where the toolkit expects them.

    `val` and `testA` refer to objects of categories that have boxes in training, `testB` to caption-only ones (as the
    official splits part people from other objects).

    Returns:
        Images, boxes, refs and expressions written; scenes_without_expression.
    """
    folder = root / "refcoco/images/mscoco/images/train2014"
    images, annotations, refs, counts = [], [], [], Counter[str]()
    for scene in _render_split(spec, "refcoco", spec.refcoco, folder, "COCO_train2014_%012d.jpg", progress):
        images.append(_make_image(scene, f"COCO_train2014_{scene.index + 1:012d}.jpg"))
        made = _make_annotations(scene, len(annotations) + 1)
        annotations += made
        found = _make_refs(scene, made, len(refs), counts["expressions"])
        refs += found
        counts["expressions"] += sum(len(ref["sentences"]) for ref in found)
        counts["scenes_without_expression"] += not found
    content = {
        "info": {
            **_make_info("layout of RefCOCO"),
            "splits": "val and testA: categories with boxes in training; testB: caption-only categories",
        },
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": _list_entries(spec),
    }
    own = root / "refcoco/refcoco"
    _write_json(own / "instances.json", content)
    _write_json(own / "refs(unc).json", refs)
    (own / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))  # plain lists and dicts
    counts.update(images=len(images), boxes=len(annotations), refs=len(refs))
    return counts


def _make_refs(
    scene: Scene, annotations: list[dict[str, Any]], first_ref: int, first_sentence: int
) -> list[dict[str, Any]]:
    split, refs, sent_id = choose_split(scene.index), [], first_sentence
    for number, thing in enumerate(scene.objects):
        if thing.category.caption_only != (split == "testB"):
            continue
        expressions = [e for e in scene.expressions if e.object_index == number][:_SENTENCES]
        if not expressions:
            continue
        sentences = [
            {"sent_id": sent_id + offset, "sent": e.text, "raw": e.text, "tokens": e.text.split(), "kind": e.kind}
            for offset, e in enumerate(expressions)
        ]
        sent_id += len(sentences)
        refs.append(
            {
                "ref_id": first_ref + len(refs),
                "ann_id": annotations[number]["id"],
                "image_id": scene.index + 1,
                "category_id": thing.category_id,
                "split": split,
                "file_name": f"COCO_train2014_{scene.index + 1:012d}_{annotations[number]['id']}.jpg",
                "sentences": sentences,
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
            }
        )
    return refs


ZEROSHOT, NAME, SPLIT = "zeroshot", "single", "test"


def render_single_scene(spec: WorldSpec, index: int) -> Scene:
    """A scene of the world with one object, of any category."""
    return render_scene(replace(spec, min_objects=1, max_objects=1), index, "single")


def write_single(spec: WorldSpec, root: Path, progress: bool = True) -> Counter[str]:
    """Write `zeroshot/single` below a data root: a folder for every category, one without an image included.

    Returns:
        Images and classes written.
    """
    folder, known = root / ZEROSHOT / NAME, list_categories(spec)
    folders = {category.id: folder / SPLIT / f"{category.id:04d}" for category in known}
    for class_folder in folders.values():
        class_folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(spec.num_single), desc="rendering single objects", unit="scene", disable=not progress):
        scene = render_single_scene(spec, index)
        file = folders[scene.objects[0].category_id] / f"{index + 1:06d}.jpg"
        file.write_bytes(encode_jpeg(scene.image, spec.quality))
    lines = "".join(f"{category.name}\n" for category in known)
    (folder / "classnames.txt").write_text(lines, encoding="utf-8")
    card = {"schema": 1, "name": f"scenes-{NAME}", "rendered": True, "licence": LICENCE, "made": spec.made()}
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return Counter(images=spec.num_single, classes=len(known))
