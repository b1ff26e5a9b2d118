"""The memory that many names cost one photo at inference, beside the seconds of `detection_speed`.

Each measurement has a process of its own, since a process never gives back its peak.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.speed import detection_models as made
from benchmarks.speed.timing import COST
from benchmarks.tasks.contract import Score
from cloc.data_root import REPOSITORY

CONCEPTS = (1, 1203, 5000, 10_000, 20_000)
ANCHORS = sum(-(-made.SHORT // stride) * -(-made.LONG // stride) for stride in (8, 16, 32, 64, 128))
"""Places of the head on the canvas, about: its sides are rounded up to the divisor."""
WIDTHS = {"tower_width": 24, "text_width": 64, "text_layers": 1}
"""A small tower, so that its own peak does not hide that of the names; head and canvas are the whole ones."""

_MEASURE = """
import sys
from pathlib import Path
from benchmarks.predictors.detector import ClocDetector
from benchmarks.speed.timing import peak_mib
from benchmarks.speed.detection_models import made_up_photo
detector = ClocDetector(Path(sys.argv[1]), "cpu", 1)
names = [f"thing {number}" for number in range(int(sys.argv[2]))]
detector.detect([made_up_photo()], names)
print("peak", peak_mib())
"""


def measure_memory(split: str, repeats: int) -> list[Score]:
    """Peak memory of one photo with ever more names, over that with one name; and the size of all logits at once."""
    with tempfile.TemporaryDirectory(prefix="detection-memory-") as work:
        made.write_cloc(Path(work), **WIDTHS)
        peaks = {count: _peak_mib(Path(work), count) for count in CONCEPTS}
    rows = []
    for count in CONCEPTS[1:]:
        extra, logits = peaks[count] - peaks[1], ANCHORS * count * 4 / 2**20
        protocol = f"{count}-names/one-photo/peak-over-one-name/small-tower/fp32"
        rows.append(Score(split, protocol, "detection_extra_mib", value=extra, num_examples=1, no_constant=COST))
        rows.append(
            Score(split, f"{count}-names/computed", "all_logits_mib", value=logits, num_examples=1, no_constant=COST)
        )
    return rows


def _peak_mib(folder: Path, count: int) -> float:
    output = _output([sys.executable, "-c", _MEASURE, str(folder), str(count)], Path.cwd())
    return float(output.rsplit("peak", 1)[1])


def _output(command: list[str], folder: Path) -> str:
    """What a process prints.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"detection_speed: a measurement ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout
