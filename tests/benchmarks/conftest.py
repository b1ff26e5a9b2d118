"""A world of flat colours: photos whose boxes can be told from pixels, and predictors that read, guess or err."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPVisionConfig, LlavaImageProcessor

from cloc import ClocConfig, ClocModel, ClocProcessor, ClocVisionConfig
from cloc.tokenizer import clip_tokenizer

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "fire_opal": (255, 255, 0)}
NAMES = tuple(COLOURS)
WIDTH, HEIGHT = 40, 30
PLACES = ((2, 3, 12, 13), (16, 4, 26, 20), (28, 10, 38, 28))  # xyxy pixels, disjoint
FREQUENCY = {"red": "f", "green": "f", "blue": "c", "fire_opal": "c"}  # no rare one


def world(images: int, seed: int = 0) -> list[list[int]]:
    """For each image three different classes, one for each of `PLACES`."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(len(NAMES))[:3].tolist() for _ in range(images)]


def paint(kinds: list[int]) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    for kind, box in zip(kinds, PLACES, strict=True):
        image.paste(COLOURS[NAMES[kind]], box)
    return image


def write_world(root: Path, images: int = 12, rendered: bool = False, caption_only: tuple[str, ...] = ()) -> Path:
    """COCO, LVIS and RefCOCO files of the same scenes, in the official layouts."""
    scenes = world(images)
    photos, others = root / "coco" / "val2017", root / "refcoco" / "images" / "mscoco" / "images" / "train2014"
    for folder in (photos, others, root / "coco" / "annotations", root / "lvis", root / "refcoco" / "refcoco"):
        folder.mkdir(parents=True, exist_ok=True)
    entries, annotations, refs = [], [], []
    for index, kinds in enumerate(scenes, start=1):
        paint(kinds).save(photos / f"{index:012d}.jpg", format="PNG")  # lossless, so that colours can be read back
        paint(kinds).save(others / f"COCO_train2014_{index:012d}.jpg", format="PNG")
        entries.append({"id": index, "file_name": f"{index:012d}.jpg", "width": WIDTH, "height": HEIGHT})
        for place, kind in enumerate(kinds):
            x0, y0, x1, y1 = PLACES[place]
            row = {"id": 10 * index + place, "image_id": index, "category_id": kind + 1, "iscrowd": 0}
            annotations.append({**row, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
            refs.append(reference(index, place, kind, len(refs)))
    categories = [{"id": i + 1, "name": name, "caption_only": name in caption_only} for i, name in enumerate(NAMES)]
    head = {"info": {"rendered": rendered}, "images": entries, "categories": categories, "annotations": annotations}
    (root / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(head))
    federated = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    lvis_images = [{**e, "coco_url": f"val2017/{e['file_name']}", **federated} for e in entries]
    lvis_categories = [{**one, "frequency": FREQUENCY[one["name"]]} for one in categories]
    lvis = {**head, "images": lvis_images, "categories": lvis_categories}
    (root / "lvis" / "lvis_v1_val.json").write_text(json.dumps(lvis))
    named = [{**e, "file_name": f"COCO_train2014_{e['id']:012d}.jpg"} for e in entries]
    (root / "refcoco" / "refcoco" / "instances.json").write_text(json.dumps({**head, "images": named}))
    (root / "refcoco" / "refcoco" / "refs(unc).json").write_text(json.dumps(refs))
    return root


def reference(index: int, place: int, kind: int, ref_id: int) -> dict:
    """One ref with an expression by name and one that is marked relational; both hold the colour's name."""
    told = [(NAMES[kind], "name"), (f"the {NAMES[kind]} one of three", "relational")]
    sentences = [
        {"sent_id": 2 * ref_id + i, "sent": text, "raw": text, "tokens": text.split(), "kind": sort}
        for i, (text, sort) in enumerate(told)
    ]
    return {
        "ref_id": ref_id,
        "ann_id": 10 * index + place,
        "image_id": index,
        "category_id": kind + 1,
        "split": "val",
        "file_name": f"COCO_train2014_{index:012d}_{ref_id}.jpg",
        "sentences": sentences,
        "sent_ids": [s["sent_id"] for s in sentences],
    }


class Reader:
    """Reads the colour inside a box, and finds the box of a colour: right by construction.

    Args:
        shift: classes are misnamed by this many places.
        first: only the first so many regions of each image are read right, later ones are misnamed.
    """

    name = "reader"
    cannot_ground: str | None = None

    def __init__(self, shift: int = 0, first: int = 99) -> None:
        self.shift, self.first = shift, first

    def encode_texts(self, texts):
        kinds = [next(i for i, name in enumerate(NAMES) if name.replace("_", " ") in _spoken(text)) for text in texts]
        return np.eye(len(NAMES), dtype=np.float32)[np.array(kinds, dtype=int)]

    def encode_images(self, images):
        """The colour that is nearest to the mean of the whole image."""
        kinds = [self._kind(image, (0, 0, *image.size), 0) for image in images]
        return np.eye(len(NAMES), dtype=np.float32)[np.array(kinds, dtype=int)]

    def encode_regions(self, images, boxes_xyxy):
        found = []
        for image, boxes in zip(images, boxes_xyxy, strict=True):
            kinds = [self._kind(image, box, place) for place, box in enumerate(boxes)]
            found.append(np.eye(len(NAMES), dtype=np.float32)[np.array(kinds, dtype=int)])
        return found

    def _kind(self, image, box, place) -> int:
        x0, y0, x1, y1 = (round(v) for v in box)
        mean = np.asarray(image)[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0)
        kind = int(np.abs(np.array(list(COLOURS.values())) - mean).sum(axis=1).argmin())
        return (kind + self.shift + (place >= self.first)) % len(NAMES)

    def ground(self, images, phrases):
        found = []
        for image, asked in zip(images, phrases, strict=True):
            pixels, boxes = np.asarray(image), []
            for text in asked:
                kind = int(self.encode_texts([text])[0].argmax())
                rows, columns = np.nonzero((pixels == COLOURS[NAMES[kind]]).all(axis=2))
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            found.append(np.array(boxes, dtype=float).reshape(-1, 4))
        return found


def _spoken(text: str) -> str:
    return text.replace("_", " ")


class Guesser:
    """Fresh random vectors and boxes for every example."""

    name = "guesser"
    cannot_ground: str | None = None

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def _vectors(self, count):
        drawn = self.rng.normal(size=(count, 16)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def encode_texts(self, texts):
        return self._vectors(len(texts))

    def encode_images(self, images):
        return self._vectors(len(images))

    def encode_regions(self, images, boxes_xyxy):
        return [self._vectors(len(boxes)) for boxes in boxes_xyxy]

    def ground(self, images, phrases):
        places = np.array(PLACES, dtype=float)
        return [places[self.rng.integers(len(places), size=len(asked))] for asked in phrases]


@pytest.fixture(scope="session")
def colours() -> SimpleNamespace:
    """The builders of this file, since test files cannot import each other."""
    return SimpleNamespace(
        write=write_world,
        Reader=Reader,
        Guesser=Guesser,
        values=COLOURS,
        names=NAMES,
        places=PLACES,
        size=(WIDTH, HEIGHT),
    )


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of 12 real-looking photos; tests must not change it."""
    return write_world(tmp_path_factory.mktemp("root"))


def tiny_model(has_prompter: bool, seed: int = 0) -> ClocModel:
    """A random model on 16 x 16 pixels with 2 x 2 patches."""
    tokenizer = clip_tokenizer()
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = ClocVisionConfig(tower=tower.to_dict(), projection_dim=12, has_prompter=has_prompter)
    objective = "cloc" if has_prompter else "clip"
    torch.manual_seed(seed)
    return ClocModel(ClocConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), objective=objective)).eval()


def tiny_export(run: Path, has_prompter: bool, seed: int = 0) -> Path:
    """A finished export folder of a tiny model."""
    folder = run / "export"
    tiny_model(has_prompter, seed).save_pretrained(folder)
    images = LlavaImageProcessor(
        do_pad=True, do_center_crop=False, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    ClocProcessor(images, clip_tokenizer()).save_pretrained(folder)
    objective = "cloc" if has_prompter else "clip"
    card = {"schema": 1, "time": f"2026-01-0{seed + 1}", "objective": objective, "model_sha256": f"{objective}{seed}"}
    (folder / "export.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`cloc` and `clip`: export folders of runs with those names; tests must not change them."""
    runs = tmp_path_factory.mktemp("runs")
    return {name: tiny_export(runs / name, name == "cloc") for name in ("cloc", "clip")}


@pytest.fixture
def files(tmp_path):
    """Writes annotations and predictions to be scored; with `lines` as JSON lines."""

    def write(annotations, predictions, lines=False):
        paths = tmp_path / "predictions.json", tmp_path / "annotations.json"
        for path, content in zip(paths, (predictions, annotations), strict=True):
            path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
        return paths

    return write
