"""Annotation files of every converter: one entry of many damaged, or the whole file."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tools.damage.pictures import encoded, picture
from tools.damage.running import COUNTED, OK, Reader, WrongError, call
from tools.damage.values import RAW, damaged, document, hurt, written

IMAGES = 24
PHOTOS = "VG_100K"
"""Name of the folder with the photos, as Visual Genome has it."""
SIZE = {"width": 40, "height": 30}
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "hot dog"}]
XML = (
    "<annotation><filename>{}.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size><object>"
    "<name>11</name><name>12</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>"
    "<object><name>13</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"
)
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaa">{}]><annotation>&h;</annotation>'.format(
        "".join(f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefg", "bcdefgh", strict=True))
    )
)


@dataclass(frozen=True)
class Layout:
    """A converter's valid input.

    Attributes:
        files: content by name: a JSON value (`.json`), a list of JSON values (`.jsonl`), an object to pickle (`.p`), or
            bytes.
        options: of the command, `{}` standing for the folder with the files and `{photos}` for that of the photos.
        entries: (file, path to the list) in which one damaged entry must not end the conversion.
    """

    files: dict[str, Any]
    options: list[str]
    entries: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


def coco() -> Layout:
    """COCO's instances and captions."""
    images = [{"id": n + 1, "file_name": f"{n:012d}.jpg", **SIZE} for n in range(IMAGES)]
    boxes = [
        {"id": n + 1, "image_id": n // 2 + 1, "category_id": 1 + n % 2, "bbox": [n % 9, 2.5, 20, 15], "area": 300.0,
         "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]}
        for n in range(2 * IMAGES)
    ]  # fmt: skip
    captions = [{"id": n, "image_id": n + 1, "caption": f"a cat and {n} dogs"} for n in range(IMAGES)]
    files = {
        "instances.json": {"images": images, "annotations": boxes, "categories": CATEGORIES},
        "captions.json": {"images": images, "annotations": captions},
    }
    options = ["coco", "--images", "{photos}", "--instances", "{}/instances.json", "--captions", "{}/captions.json"]
    entries = [
        ("instances.json", ("annotations",)),
        ("captions.json", ("annotations",)),
        ("instances.json", ("images",)),
    ]
    return Layout(files, options, entries)


def lvis() -> Layout:
    """LVIS v1."""
    file = copy.deepcopy(coco().files["instances.json"])
    for number, image in enumerate(file["images"]):
        image |= {"coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg"}
        image |= {"neg_category_ids": [1], "not_exhaustive_category_ids": [2]}
    file["categories"] = [
        {"id": 1, "name": "cat", "synset": "cat.n.01", "def": "a cat", "synonyms": ["cat"], "frequency": "f"},
        {"id": 2, "name": "dog", "synset": "dog.n.01", "def": "a dog", "synonyms": ["dog"], "frequency": "r"},
    ]
    options = ["lvis", "--images", "{photos}", "--annotations", "{}/lvis.json"]
    return Layout({"lvis.json": file}, options, [("lvis.json", ("annotations",)), ("lvis.json", ("images",))])


def objects365() -> Layout:
    """Objects365 v2."""
    file = copy.deepcopy(coco().files["instances.json"])
    for image in file["images"]:
        image["file_name"] = f"images/v1/patch8/{image['file_name']}"
    for box in file["annotations"]:
        box["isfake"] = 0
    options = ["objects365", "--images", "{photos}", "--annotations", "{}/o.json"]
    return Layout({"o.json": file}, options, [("o.json", ("annotations",)), ("o.json", ("images",))])


def odvg() -> Layout:
    """Rows with boxes of categories and with boxes of phrases."""
    rows: list[dict[str, Any]] = []
    for n in range(IMAGES):
        row = {"filename": f"{n:012d}.jpg", **SIZE}
        row["detection"] = {"instances": [{"bbox": [1, 2, 30, 20], "label": n % 2, "category": ["cat", "dog"][n % 2]}]}
        rows.append(row)
    options = ["odvg", "--images", "{photos}", "--annotations", "{}/rows.jsonl"]
    return Layout({"rows.jsonl": rows}, options, [("rows.jsonl", ())])


def odvg_grounding() -> Layout:
    """Rows with boxes of phrases."""
    rows = []
    for n in range(IMAGES):
        regions = [
            {"bbox": [1, 2, 30, 20], "phrase": "a cat"},
            {"bbox": [[1, 2, 9, 9], [3, 3, 9, 9]], "phrase": "dogs"},
        ]
        rows.append(
            {"filename": f"{n:012d}.jpg", **SIZE, "grounding": {"caption": "a cat and dogs", "regions": regions}}
        )
    options = ["odvg", "--images", "{photos}", "--annotations", "{}/rows.jsonl"]
    return Layout({"rows.jsonl": rows}, options, [("rows.jsonl", ())])


def goldg() -> Layout:
    """GoldG's mixed file."""
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", **SIZE, "caption": "a red car by a barn", "dataset_name": "mixed",
         "original_img_id": n}
        for n in range(IMAGES)
    ]  # fmt: skip
    boxes = [
        {"id": n, "image_id": n // 2, "category_id": 1, "iscrowd": 0, "bbox": [5, 5, 20, 10],
         "tokens_positive": [[[0, 9], [13, 19]][n % 2]]}
        for n in range(2 * IMAGES)
    ]  # fmt: skip
    file = {"info": [], "licenses": [], "images": images, "annotations": boxes, "categories": []}
    options = ["goldg", "--images", "{photos}", "--annotations", "{}/goldg.json"]
    return Layout({"goldg.json": file}, options, [("goldg.json", ("annotations",)), ("goldg.json", ("images",))])


def entities() -> Layout:
    """Flickr30k Entities."""
    said = b"[/EN#11/people Two men] in [/EN#12/clothing red hats] on [/EN#13/scene a street] .\n"
    files: dict[str, Any] = {"train.txt": "\n".join(f"{n:012d}" for n in range(IMAGES)).encode()}
    for n in range(IMAGES):
        files[f"Sentences/{n:012d}.txt"] = said
        files[f"Annotations/{n:012d}.xml"] = XML.format(f"{n:012d}").encode()
    return Layout(files, ["flickr30k_entities", "--root", "{}", "--images", "{photos}"])


def grit() -> Layout:
    """GRIT's rows."""
    chunk, whole = [2, 7, 0.1, 0.2, 0.5, 0.6, 0.9], [0, 20, 0.1, 0.2, 0.5, 0.6, 0.9]
    rows = [
        {"key": f"{n:012d}", "caption": "a small dog on a mat", **SIZE, "url": "http://x/y.jpg", "noun_chunks": [chunk],
         "ref_exps": [whole]}
        for n in range(IMAGES)
    ]  # fmt: skip
    return Layout(
        {"rows.jsonl": rows}, ["grit", "--images", "{photos}", "--rows", "{}/rows.jsonl"], [("rows.jsonl", ())]
    )


def visual_genome() -> Layout:
    """Visual Genome's region descriptions."""
    url = "https://cs.stanford.edu/people/rak248/VG_100K/"
    data = [
        {"image_id": n, **SIZE, "url": f"{url}{n:012d}.jpg", "coco_id": None, "flickr_id": n} for n in range(IMAGES)
    ]
    place = {"x": 1, "y": 2, "width": 15, "height": 16}
    regions = [
        {"id": n, "regions": [{"region_id": 10 * n + k, "image_id": n, "phrase": "red cup", **place} for k in range(2)]}
        for n in range(1, IMAGES + 1)
    ]
    files = {"image_data.json": data, "region_descriptions.json": regions}
    options = ["visual_genome", "--root", "{}", "--images", "{photos}"]
    return Layout(files, options, [("region_descriptions.json", ()), ("image_data.json", ())])


def refcoco() -> Layout:
    """RefCOCO in refer's layout, with a pickle."""
    file = copy.deepcopy(coco().files["instances.json"])
    refs = [
        {"ref_id": n, "ann_id": n + 1, "image_id": n // 2 + 1, "split": "train", "category_id": 1, "file_name": "x.jpg",
         "sentences": [{"sent_id": n, "sent": "left cup", "raw": "Left", "tokens": ["left", "cup"]}], "sent_ids": [n]}
        for n in range(2 * IMAGES)
    ]  # fmt: skip
    files = {"refcoco/instances.json": file, "refcoco/refs(unc).p": refs}
    return Layout(files, ["refcoco", "--root", "{}", "--images", "{photos}"])


def finehard() -> Layout:
    """FineHARD's rows."""
    box = {"bbox": [0.1, 0.2, 0.5, 0.6, 0.9], "short_expr": "a cup", "long_expr": "a red cup", "flag_short_neg": 1}
    box |= {"short_expr_negs": {"0": "a jug"}}
    rows = [
        {"f_path": f"{n:012d}.jpg", "long_caption": "A long caption.", "short_caption": "Short.", "bbox_info": [box]}
        for n in range(IMAGES)
    ]
    return Layout(
        {"rows.json": rows}, ["finehard", "--images", "{photos}", "--rows", "{}/rows.json"], [("rows.json", ())]
    )


def llava() -> Layout:
    """LLaVA's conversations."""
    question = "<image>\nPlease provide a short description for this region: [0.25, 0.25, 0.5, 0.75]."
    rows = [
        {"id": f"{n}", "image": f"{n:012d}.jpg",
         "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "A red cup."}]}
        for n in range(IMAGES)
    ]  # fmt: skip
    options = ["llava", "--images", "{photos}", "--conversations", "{}/llava.json"]
    return Layout({"llava.json": rows}, options, [("llava.json", ())])


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "coco": coco, "lvis": lvis, "objects365": objects365, "odvg": odvg, "odvg grounding": odvg_grounding,
    "goldg": goldg, "flickr30k_entities": entities, "grit": grit, "visual_genome": visual_genome, "refcoco": refcoco,
    "finehard": finehard, "llava": llava,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A layout, its photos, and what its conversion gives while nothing is damaged."""

    layout: Layout
    photos: Path
    clean: dict[str, Any]


def prepare(make: Callable[[], Layout], world: Path) -> World:
    """Photos on disk, and the clean conversion."""
    photos = world / PHOTOS
    photos.mkdir()
    for n in range(IMAGES):
        (photos / f"{n:012d}.jpg").write_bytes(encoded(Image.new("RGB", (40, 30), (n, 90, 10)), "JPEG"))
    layout = make()
    write(layout, layout.files, world / "clean")
    card = convert(layout, world / "clean", photos, world / "out")
    if not card["counts"]["samples"]:
        raise RuntimeError(f"{layout.options[0]}: nothing was converted")
    return World(layout, photos, card)


def write(layout: Layout, files: dict[str, Any], folder: Path) -> None:
    """Files of a layout; what is bytes already is written as it is."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = packed(name, content)
        path.write_bytes(content)


def packed(name: str, content: Any) -> bytes:
    """The bytes of a file by its name."""
    if name.endswith(".p"):
        return pickle.dumps(content, protocol=2)
    if name.endswith(".jsonl"):
        return "\n".join(written(row).replace("\n", " ") for row in content).encode("utf-8", "surrogatepass")
    return written(content).encode("utf-8", "surrogatepass")


def convert(layout: Layout, files: Path, photos: Path, out: Path) -> dict[str, Any]:
    """The card of a conversion."""
    from cloc.convert.__main__ import main

    options = [part.replace("{photos}", str(photos)).replace("{}", str(files)) for part in layout.options]
    call(main, *options, "--out", out, "--workers", 1)
    return json.loads((out / "dataset.json").read_text())


def one_entry(layout: Layout, random: Random) -> tuple[dict[str, Any], str]:
    """Files with one entry of a list damaged, and the name of the list; none where the file is no JSON any more."""
    name, path = random.choice(layout.entries)
    content = copy.deepcopy(layout.files[name])
    place = content
    for part in path:
        place = place[part]
    at = random.randrange(len(place))
    place[at] = damaged(place[at], random)
    unreadable = RAW.strip("\0") in str(place[at]) and not name.endswith(".jsonl")
    return {**layout.files, name: content}, "" if unreadable else ".".join(path) or name


def any_file(layout: Layout, random: Random) -> dict[str, Any]:
    """A file damaged anywhere."""
    name = random.choice(sorted(layout.files))
    content = layout.files[name]
    if isinstance(content, bytes):
        bad = BOMB.encode() if name.endswith(".xml") and random.random() < 0.1 else hurt(content, random)
    elif name.endswith(".p"):
        bad = hurt(packed(name, content), random)
        if random.random() < 0.4:
            # no half surrogates or raw texts in a pickle: what `damaged` put there is a plain text then
            bad = pickle.dumps(damaged(content, random), protocol=random.choice([0, 2, 4]))
    elif name.endswith(".jsonl"):
        bad = hurt(packed(name, content), random)
    else:
        bad = document(content, random, whole=0.5)
    return {**layout.files, name: bad}


def feed(world: World, random: Random, folder: Path) -> str:
    """Damage a file of a layout (or one photo), convert, and look at what was made."""
    layout, photos, entry = world.layout, world.photos, ""
    way = random.random()
    if way < 0.08:
        photos = folder / PHOTOS
        photos.mkdir()
        bad = random.randrange(IMAGES)
        for n in range(IMAGES):
            name = f"{n:012d}.jpg"
            os.link(world.photos / name, photos / name) if n != bad else (photos / name).write_bytes(picture(random))
        files, entry = layout.files, "a photo"
    elif way < 0.7 and layout.entries:
        files, entry = one_entry(layout, random)
    else:
        files = any_file(layout, random)
    write(layout, files, folder / "files")
    out = folder / "out"
    try:
        card = convert(layout, folder / "files", photos, out)
    except ValueError as error:
        if entry:
            raise WrongError(f"one bad entry ({entry}) ended the conversion: {error}") from error
        raise
    made, before = card["counts"], world.clean["counts"]
    lost = {name: before[name] - made[name] for name in before if made.get(name, 0) < before[name]}
    dropped = sum(card["dropped"].values()) - sum(world.clean["dropped"].values())
    if lost and dropped <= 0 and card["read"] == world.clean["read"]:
        raise WrongError(f"lost in silence: {lost}")
    read_back(out)
    return COUNTED if dropped else OK


def read_back(out: Path) -> None:
    """Every sample that a conversion wrote can be read."""
    from cloc.data.tables import open_samples

    samples = open_samples(out)
    for shard, count in enumerate(samples.counts):
        for place in range(count):
            try:
                samples.read_sample(shard, place)
            except ValueError as error:
                raise WrongError(f"the conversion wrote a sample that cannot be read: {error}") from error


ANNOTATIONS = tuple(Reader(f"convert {name}", 14, partial(prepare, make), feed) for name, make in LAYOUTS.items())
