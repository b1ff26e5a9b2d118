"""Visual Genome as shards: one sample a photo, one region a description (or an object)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos
from cloc.formats.visual_genome import FILES, VisualGenome

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_visual_genome(
    root: Path, images: Sequence[Path], out: Path, regions: str = "regions", **making: Unpack[Making]
) -> dict[str, Any]:
    """Convert Visual Genome to shards of kind `regions`. There is no caption.

    `source` keeps the photo's COCO number, for about half of them are COCO's and some stand in its evaluation splits:
    `python -m cloc.check --against` finds those.

    Args:
        root: folder of `image_data.json` and `region_descriptions.json` (or `objects.json`).
        images: `VG_100K` and `VG_100K_2`, or the folder of both; see `Photos`.
        out: folder to make.
        regions: `regions` (descriptions) or `objects` (first name of each).
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    root = Path(root)
    if regions not in FILES:
        raise ValueError(f"--regions: expected one of {', '.join(FILES)}, got {regions!r}")
    photos = Photos(images)
    inputs = {"image_data": hash_input(root / "image_data.json"), "regions": hash_input(root / FILES[regions])}
    making.setdefault("licence", "CC BY 4.0 (Visual Genome)")
    job = Conversion("visual_genome", CONVERTER, Path(out), inputs, "regions", **making)
    genomes: list[VisualGenome] = []

    def read(reading: Reading) -> Iterator[Draft]:
        genomes.append(VisualGenome(root, regions))
        return _make_drafts(genomes[0], photos, job.name, reading)

    return job.run(root, read, lambda: genomes[0].images)


def _make_drafts(genome: VisualGenome, photos: Photos, name: str, reading: Reading) -> Iterator[Draft]:
    reading.read.update(images=0, regions=0)
    for photo in genome:
        reading.read.update(images=1, regions=len(photo.regions))
        location = find_photo(photos, photo.names, reading, len(photo.regions))
        if location is None:
            continue
        source: dict[str, Any] = {"dataset": name, "file_name": photo.names[0]}
        if photo.coco_id is not None:
            source["coco_id"] = photo.coco_id
        extras = {"image_id": photo.image_id, "source": source}
        size = (photo.width, photo.height)
        yield Draft(f"{photo.image_id:012d}", location, photo.names[0], "", photo.regions, extras, size)
    reading.dropped.update(genome.dropped + photos.dropped)
