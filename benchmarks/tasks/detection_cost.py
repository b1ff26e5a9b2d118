"""What detection costs beside the seconds of a photo: memory of many names, and images a second in training.

Each measurement has a process of its own, since a process never gives back its peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.roots import SOURCE
from benchmarks.tasks import detection_models as made
from benchmarks.tasks.contract import Score

CONCEPTS = (1, 1203, 5000, 10_000, 20_000)
ANCHORS = sum(-(-made.SHORT // stride) * -(-made.LONG // stride) for stride in (8, 16, 32, 64, 128))
"""Places of the head on the canvas, about: its sides are rounded up to the divisor."""
WIDTHS = {"tower_width": 24, "text_width": 64, "text_layers": 1}
"""A small tower, so that its own peak does not hide that of the names; head and canvas are the whole ones."""
SIZES = {"detection": [[made.SHORT, made.LONG]], "pairs": 320}
IMAGES = {"detection": 1, "pairs": 2}
STEPS = 3
"""The fewest; the first is left out. A detection step at this size takes minutes on one core."""

_MEASURE = """
import resource, sys
from pathlib import Path
from benchmarks.predictors.detector import ClocDetector
from benchmarks.tasks.detection_models import made_up_photo
detector = ClocDetector(Path(sys.argv[1]), "cpu", 1)
names = [f"thing {number}" for number in range(int(sys.argv[2]))]
detector.detect([made_up_photo()], names)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory_scores(split: str, repeats: int) -> list[Score]:
    """Peak memory of one photo with ever more names, over that with one name; and the size of all logits at once."""
    with tempfile.TemporaryDirectory(prefix="detection-memory-") as work:
        made.write_cloc(Path(work), **WIDTHS)
        peaks = {count: _peak_mib(Path(work), count) for count in CONCEPTS}
    rows = []
    for count in CONCEPTS[1:]:
        extra, logits = peaks[count] - peaks[1], ANCHORS * count * 4 / 2**20
        protocol = f"{count}-names/one-photo/peak-over-one-name/small-tower/fp32"
        rows.append(Score(split, protocol, "detection_extra_mib", value=extra, num_examples=1))
        rows.append(Score(split, f"{count}-names/computed", "all_logits_mib", value=logits, num_examples=1))
    return rows


def _peak_mib(folder: Path, count: int) -> float:
    told = _output([sys.executable, "-c", _MEASURE, str(folder), str(count)], Path.cwd())
    return int(told.rsplit("peak", 1)[1]) / 1024


def training_scores(split: str, repeats: int) -> list[Score]:
    """Training images a second, detection beside pairs, each in its own run of cloc/pretrain.py."""
    steps = max(STEPS, repeats + 1)
    with tempfile.TemporaryDirectory(prefix="detection-training-") as work:
        rates = {kind: images_a_second(Path(work), kind, steps) for kind in SIZES}
    rows = [
        Score(
            split,
            f"{kind}/{_told(SIZES[kind])}/batch-{IMAGES[kind]}/fp32/median-of-steps-after-the-first",
            f"{kind}_images_per_second",
            value=rate,
            num_examples=steps - 1,
        )
        for kind, rate in rates.items()
    ]
    protocol = f"pairs-{_told(SIZES['pairs'])}-batch-{IMAGES['pairs']}/detection-{_told(SIZES['detection'])}-batch-1"
    ratio = rates["pairs"] / rates["detection"]
    return [*rows, Score(split, protocol, "pairs_over_detection", value=ratio, num_examples=steps - 1)]


def _told(size: list[list[int]] | int) -> str:
    return str(size) if isinstance(size, int) else "x".join(map(str, size[0]))


def images_a_second(work: Path, kind: str, steps: int) -> float:
    """Train a few steps on photos made here; the first step is left out."""
    write_photos(work / kind, kind, steps * IMAGES[kind])
    entry = {"path": str(work / kind), "kind": kind, "batch_size": IMAGES[kind], "image_size": SIZES[kind], "weight": 1}
    model = {
        "embed_dim": 256,
        "vision": {
            "style": "swin",
            "image_size": 224,
            "patch_size": 4,
            "width": 96,
            "heads": 3,
            "depths": [2, 2, 6, 2],
        },
        "text": {"width": 512, "layers": 12, "heads": 8},
    }
    config = {
        "run": {"name": kind, "workers": 1, "trackers": ["tensorboard"], "device": "cpu"},
        "data": [entry],
        "objective": "detclip",
        "model": model,
        "train": {"steps": steps, "log_every": 1, "checkpoint_every": 10_000},
    }
    (work / f"{kind}.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML as well
    script = str(SOURCE / "cloc" / "pretrain.py")
    _output([sys.executable, script, "--config", str(work / f"{kind}.yaml"), "--runs", str(work / "runs")], work)
    lines = (work / "runs" / kind / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return median(json.loads(line)["samples_per_second"] for line in lines[1:])


def write_photos(folder: Path, kind: str, count: int) -> None:
    """Shards of noisy photos: five boxes of one of 150 names each for detection, a caption of two things for pairs."""
    from cloc import Region, Sample
    from cloc.data.shards.write import write_shards

    names, photo = made.made_up_names(150), folder.with_suffix(".jpg")
    size = (made.LONG, made.SHORT) if kind == "detection" else (320, 320)
    Image.open(_saved(photo)).resize(size).save(photo, quality=90)
    boxes = [(50.0 + 40 * k, 40.0 + 30 * k, 200.0 + 60 * k, 180.0 + 50 * k) for k in range(5)]

    def samples() -> Iterator[Sample]:
        for row in range(count):
            ids = np.random.default_rng(row).integers(0, len(names), 5).tolist()
            regions = tuple(
                Region(box, names[i], extras={"category_id": i + 1}) for box, i in zip(boxes, ids, strict=True)
            )
            caption = f"a photo of a {names[ids[0]]} and a {names[ids[1]]}" if kind == "pairs" else ""
            kept = regions if kind == "detection" else ()
            extras = {"image_id": row + 1}
            yield Sample(f"{row:06d}", photo.read_bytes(), "jpg", *size, caption, kept, extras)

    categories = [{"id": row + 1, "name": name} for row, name in enumerate(names)]
    card = {"name": f"made-up-{kind}", "kind": kind, "rendered": True, "licence": "none", "made": {"count": count}}
    write_shards(samples(), folder, card | ({"categories": categories} if kind == "detection" else {}))


def _saved(path: Path) -> Path:
    made.made_up_photo().save(path, quality=90)
    return path


def _output(command: list[str], folder: Path) -> str:
    """What a process prints.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"detection_speed: a measurement ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout
