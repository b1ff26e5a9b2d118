"""`cloc.convert coco` beside Python's `tarfile`, which copies the same members on as many processes.

The photos are noise of the size of COCO's, in files of their own; the annotations are made up, as long as COCO's.
Run by the task `speed`.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import resource
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.speed.timing import find_ratio, make_cost_scores, take_in_turn
from benchmarks.tasks.contract import Score
from cloc.convert.coco import convert_coco
from cloc.jobs import count_cores

IMAGES, SHARD = 2000, 250
SIDES = (640, 480)
DIFFERENT = 16
"""Photos that are really encoded; the others have the same bytes."""
BOXES, CORNERS, CATEGORIES = 7, 26, 80
"""Annotations an image and corners of each one's outline, as many as COCO has on average; categories."""
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Seconds:
    """What one run took.

    Attributes:
        wall: clock.
        busy: processor time, of all its processes.
    """

    wall: float
    busy: float


def measure_conversion(split: str) -> list[Score]:
    """The ratio, ours over theirs (their seconds by ours), by the clock and in processor time; and our rates."""
    workers = count_cores()
    with tempfile.TemporaryDirectory(prefix="conversion-") as folder:
        photos, file = Path(folder) / "train2017", Path(folder) / "instances.json"
        size = write_photos(photos, IMAGES)
        write_instances(file, IMAGES)
        out, copy = Path(folder) / "out", Path(folder) / "copy"
        works = {
            "ours": lambda: time_conversion(out, lambda: convert(photos, file, out, workers)),
            "theirs": lambda: time_conversion(copy, lambda: copy_members(out, copy, workers)),
        }
        seconds = take_in_turn(works, REPEATS)
    ours, theirs = seconds["ours"], seconds["theirs"]
    wall = median(one.wall for one in ours)
    figures = {
        "conversion_over_tarfile": find_ratio([one.wall for one in theirs], [one.wall for one in ours]),
        "conversion_over_tarfile_processor": find_ratio([one.busy for one in theirs], [one.busy for one in ours]),
        "conversion_images_per_second": IMAGES / wall,
        "conversion_mb_per_second": size / 1e6 / wall,
    }
    protocol = (
        f"{IMAGES}-jpegs-of-{size / IMAGES / 1e3:.0f}-kB/{BOXES}-boxes-an-image/{workers}-processes/"
        f"median-of-{REPEATS}-rounds"
    )
    return make_cost_scores(split, protocol, figures, REPEATS)


def time_conversion(out: Path, work: Callable[[], object]) -> Seconds:
    """One run into a folder that is not there."""
    shutil.rmtree(out, ignore_errors=True)
    wall, busy = time.perf_counter(), _busy()
    work()
    return Seconds(time.perf_counter() - wall, _busy() - busy)


def _busy() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def convert(photos: Path, file: Path, out: Path, workers: int) -> dict[str, Any]:
    """Ours.

    Raises:
        RuntimeError: photos or boxes were lost, so that less work was done than told.
    """
    card = convert_coco(photos, file, out, shard_size=SHARD, progress=False, workers=workers)
    if card["dropped"]:
        raise RuntimeError(f"speed: the conversion lost something: {card['dropped']}")
    return card


def copy_members(source: Path, out: Path, workers: int) -> None:
    """Theirs: every member of every shard into a tar of the same name."""
    out.mkdir()
    shards = sorted(source.glob("*.tar"))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        list(pool.map(copy_tar, shards, [out / shard.name for shard in shards]))


def copy_tar(source: Path, target: Path) -> None:
    """Copy the members of one tar."""
    with tarfile.open(source) as read, tarfile.open(target, "w") as write:
        for member in read:
            write.addfile(member, read.extractfile(member))


def write_photos(folder: Path, count: int) -> int:
    """JPEGs 000000000001.jpg and on; returns their bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    encoded = [_jpeg(rng) for _ in range(min(count, DIFFERENT))]
    for number in range(count):
        (folder / f"{number + 1:012d}.jpg").write_bytes(encoded[number % len(encoded)])
    return sum(len(encoded[number % len(encoded)]) for number in range(count))


def _jpeg(rng: np.random.Generator) -> bytes:
    """Soft blobs with fine noise: about 150 kB, COCO's photos have 160 on average."""
    width, height = SIDES
    soft = rng.normal(128, 40, (height // 8, width // 8, 3)).clip(0, 255).astype(np.uint8)
    image = np.asarray(Image.fromarray(soft).resize(SIDES, Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = (image + rng.normal(0, 14, image.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_instances(
    file: Path, count: int, corners: int = CORNERS, name: Callable[[int], str] = "{:012d}.jpg".format
) -> None:
    """A COCO instances file of so many images, written piece by piece.

    Args:
        file: it.
        count: images, numbered from 1.
        corners: of the outline of each box; they make the file long.
        name: the photo of an image.
    """
    with file.open("w", encoding="utf-8") as out:
        listed = ", ".join(json.dumps({"id": k + 1, "name": f"category {k}"}) for k in range(CATEGORIES))
        out.write(f'{{"categories": [{listed}], "images": [')
        width, height = SIDES
        entries = ({"id": i, "file_name": name(i), "width": width, "height": height} for i in range(1, count + 1))
        out.writelines(_with_commas(entries))
        out.write('], "annotations": [')
        out.writelines(_with_commas(_annotations(count, corners)))
        out.write("]}")


def _annotations(count: int, corners: int) -> Iterator[Mapping[str, Any]]:
    rng = np.random.default_rng(1)
    outline = rng.uniform(0, 480, 2 * corners).round(2).tolist()
    for image in range(1, count + 1):
        places = rng.uniform(0, 200, (BOXES, 4)).round(2)
        for number, (x, y, width, height) in enumerate(places.tolist()):
            yield {
                "id": (image - 1) * BOXES + number + 1,
                "image_id": image,
                "category_id": number % CATEGORIES + 1,
                "bbox": [x, y, width + 10, height + 10],
                "area": (width + 10) * (height + 10),
                "iscrowd": 0,
                "segmentation": [outline],
            }


def _with_commas(entries: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        yield f"{', ' if number else ''}{json.dumps(entry)}"
