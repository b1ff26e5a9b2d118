"""Peak memory of `cloc.convert coco` on an annotation file, and on one of half its length: it must not grow.

    python -m benchmarks.speed.conversion_memory --megabytes 500

Each conversion has a process of its own. Every image of the files is the same small photo, so that the disk need not
hold a photo for each of them. Run by the task `speed` with small files, where a cache of 16 MiB still fills.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.speed.conversion import SIDES, write_instances
from benchmarks.speed.timing import call_in_process, make_cost_scores, read_peak_mib
from benchmarks.tasks.contract import Score
from cloc.convert.coco import convert_coco
from cloc.jobs import count_cores

MEGABYTES = 40
CORNERS = 160
"""Of each outline: about 18 kB an image, so that a long file has not too many images."""
SHARD = 500
PHOTO = "photo.jpg"


@dataclass(frozen=True, slots=True)
class Peak:
    """One conversion.

    Attributes:
        megabytes: length of the annotation file.
        images: in it.
        mib: peak resident memory of the process that reads, over that before.
    """

    megabytes: float
    images: int
    mib: float


def measure_memory(split: str, megabytes: float = MEGABYTES) -> list[Score]:
    """The growth, and both peaks."""
    half, whole = measure_peaks(megabytes)
    protocol = (
        "/".join(f"{one.megabytes:.0f}-MB-of-json-{one.images}-images" for one in (half, whole))
        + f"/{count_cores()}-workers"
    )
    figures = {
        "conversion_memory_growth": whole.mib / half.mib,
        "conversion_mib_half": half.mib,
        "conversion_mib_whole": whole.mib,
    }
    return make_cost_scores(split, protocol, figures, 1)


def measure_peaks(megabytes: float, folder: Path | None = None) -> tuple[Peak, Peak]:
    """Of half a file and of a whole one.

    Args:
        megabytes: of the whole file.
        folder: where to work, None for the system's folder for temporary files.

    Raises:
        RuntimeError: a conversion's process died.
    """
    with tempfile.TemporaryDirectory(prefix="conversion-memory-", dir=folder) as work:
        images = _images_for(megabytes, Path(work))
        return _apart(Path(work), images // 2), _apart(Path(work), images)


def _images_for(megabytes: float, work: Path) -> int:
    probe = work / "probe.json"
    write_instances(probe, 20, CORNERS, lambda number: PHOTO)
    return max(2, round(megabytes * 1e6 / (probe.stat().st_size / 20)))


def _apart(work: Path, images: int) -> Peak:
    """Convert in a fresh process."""
    photos, file, out = work / "photos", work / f"{images}.json", work / f"out-{images}"
    photos.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", SIDES, (90, 120, 60)).save(buffer, "JPEG", quality=50)
    (photos / PHOTO).write_bytes(buffer.getvalue())
    write_instances(file, images, CORNERS, lambda number: PHOTO)
    extra_mib = call_in_process(f"the conversion of {images} images", "room on the disk", _extra_mib, photos, file, out)
    found = Peak(file.stat().st_size / 1e6, images, extra_mib)
    file.unlink()
    return found


def _extra_mib(photos: Path, file: Path, out: Path) -> float:
    before = read_peak_mib()
    convert_coco(photos, file, out, shard_size=SHARD, progress=False)
    return read_peak_mib() - before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when memory is flat, 1 when it is not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.conversion_memory",
        description="Peak memory of a COCO conversion on a made-up annotation file and on one of half its length.",
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--megabytes", type=float, default=500, help="of the longer file (default: %(default)s)")
    asked = parser.parse_args(arguments)
    found = measure_peaks(asked.megabytes, asked.folder)
    for one in found:
        print(f"{one.megabytes:,.0f} MB, {one.images:,} images: {one.mib:,.0f} MiB")
    print(f"growth {found[1].mib / found[0].mib:.2f} (flat: at most {FLAT})")
    return int(found[1].mib / found[0].mib > FLAT)


FLAT = 1.25
"""Twice the file may not take more than this; the caches of the first megabytes fill while it is read."""

if __name__ == "__main__":
    sys.exit(main())
