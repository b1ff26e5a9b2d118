"""The rendered set in the other programs' layouts, and in the official ones that our own tasks read.

CLIP_benchmark's layout (its `wds/` data sets): `SPLIT/nshards.txt` and `SPLIT/0.tar`, with `KEY.jpg` and `KEY.cls` for
classes, `KEY.jpg` and `KEY.txt` (a caption a line) for retrieval; `classnames.txt`,
`zeroshot_classification_templates.txt` and `dataset_type.txt` beside the split.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cloc.files import read_json
from cloc.scenes.build import ensure_scenes
from cloc.scenes.world import WorldSpec

TEMPLATES = ("{c}", "a {c}", "a picture of a {c}")
SPLIT = "test"
CAPTIONS, INSTANCES = "captions_val2017.json", "instances_val2017.json"


def render_world(out: Path, images: int, conversations: int = 0) -> Path:
    """A rendered world with `images` single objects and as many scenes; one that is there is taken.

    Raises:
        ValueError: `out` holds another one.
    """
    ensure_scenes(out, WorldSpec(train=0, pairs=1, val=images, refcoco=1, single=images, conversations=conversations))
    return out


def write_tar(folder: Path, examples: Iterable[tuple[str, dict[str, bytes]]]) -> int:
    """One split of one shard: `nshards.txt` and `0.tar`.

    Args:
        folder: of the split.
        examples: key and its members by ending.

    Returns:
        How many examples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with tarfile.open(folder / "0.tar", "w") as tar:
        for key, members in examples:
            count += 1
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (folder / "nshards.txt").write_text("1\n", encoding="utf-8")
    return count


def write_classes(single: Path, out: Path) -> int:
    """Class folders as CLIP_benchmark's shards, with names and templates; `zeroshot` reads the same shards.

    Args:
        single: `zeroshot/single` of a world.
        out: `zeroshot/single` of the new root.

    Returns:
        How many images.
    """
    classes = sorted(part for part in (single / SPLIT).iterdir() if part.is_dir())
    files = [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.glob("*.jpg"))]
    images = ((file.stem, {"jpg": file.read_bytes(), "cls": str(label).encode()}) for file, label in files)
    count = write_tar(out / SPLIT, images)
    for name in ("classnames.txt", "dataset.json"):
        shutil.copy(single / name, out / name)
    lines = "".join(f"{template}\n" for template in TEMPLATES)
    (out / "zeroshot_classification_templates.txt").write_text(lines, encoding="utf-8")
    return count


def write_captions(coco: Path, out: Path) -> tuple[int, int]:
    """Scenes with captions in both layouts: `OUT/coco` for ours, `OUT/captions` for CLIP_benchmark.

    Images whose caption another image has too are left out: the two programs rank equal captions differently.

    Args:
        coco: `coco` of a world.
        out: the new root.

    Returns:
        How many images, and how many were left out.
    """
    contents = {name: read_json(coco / "annotations" / name) for name in (CAPTIONS, INSTANCES)}
    captions_of: dict[int, list[str]] = {}
    for one in contents[CAPTIONS]["annotations"]:
        captions_of.setdefault(one["image_id"], []).append(one["caption"])
    times = Counter(caption for captions in captions_of.values() for caption in captions)
    kept = {key for key, captions in captions_of.items() if all(times[caption] == 1 for caption in captions)}
    images = [image for image in contents[CAPTIONS]["images"] if image["id"] in kept]
    photos = out / "coco" / "val2017"
    (out / "coco" / "annotations").mkdir(parents=True, exist_ok=True)
    photos.mkdir(exist_ok=True)
    for name, content in contents.items():
        annotations = [one for one in content["annotations"] if one["image_id"] in kept]
        part = {**content, "images": images, "annotations": annotations}
        (out / "coco" / "annotations" / name).write_text(json.dumps(part), encoding="utf-8")
    examples = []
    for image in images:
        shutil.copy(coco / "val2017" / image["file_name"], photos / image["file_name"])
        raw = (photos / image["file_name"]).read_bytes()
        examples.append((f"{image['id']:012d}", {"jpg": raw, "txt": "\n".join(captions_of[image["id"]]).encode()}))
    write_tar(out / "captions" / SPLIT, examples)
    (out / "captions" / "dataset_type.txt").write_text("retrieval\n", encoding="utf-8")
    return len(images), len(captions_of) - len(images)
