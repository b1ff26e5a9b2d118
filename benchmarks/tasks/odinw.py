"""`odinw`: the 13 sets of Object Detection in the Wild, each in COCO's layout, scored as COCO (GLIP, arXiv 2112.03857).

A set is its folder under `odinw/`; below it GLIP's download has folders of varying depth that end in `test/` or
`valid/` with `annotations_without_background.json` (or Roboflow's `_annotations.coco.json`) beside the photos. Test is
taken where it is there, else valid. Names are asked as the file has them, without GLIP's hand-written captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.data_roots import FoundSet
from benchmarks.predictors.detector import DetectorPredictor
from benchmarks.rows import Row
from benchmarks.tasks.coco import measure_coco
from benchmarks.tasks.contract import Options, Task, TaskOutput
from benchmarks.tasks.detection import check_detection
from cloc.formats.annotated import AnnotatedSet
from cloc.formats.coco import read_coco

SETS = (
    "AerialMaritimeDrone", "Aquarium", "CottontailRabbits", "EgoHands", "NorthAmericaMushrooms", "Packages",
    "PascalVOC", "pistols", "pothole", "Raccoon", "ShellfishOpenImages", "thermalDogsAndPeople", "VehiclesOpenImages",
)  # fmt: skip
SPLITS = ("test", "valid", "val")
FILES = ("annotations_without_background.json", "_annotations.coco.json")


class Odinw(Task):
    """Every one of the 13 sets that is there."""

    name = "odinw"
    needs = f"odinw/NAME/.../test/{FILES[0]} with the photos beside it, NAME one of {', '.join(SETS)}"
    runs_by_default = True
    kinds = ("detector",)

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "odinw" for root in roots]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = []
        for root in roots:
            for name in SETS:
                chosen = find_annotation_file(root / "odinw" / name)
                if chosen is not None:
                    split, file = chosen
                    load = partial(read_coco, file, file.parent, name=f"odinw-{name}")
                    found.append(FoundSet(f"odinw-{name}", split, file, load))
        return found

    def self_check(self) -> None:
        """See `Task.self_check`."""
        check_detection(self.name)

    def run(self, predictor: DetectorPredictor, dataset: AnnotatedSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        return measure_coco(predictor, dataset, found, options)

    def averages(self, rows: Sequence[Row]) -> list[Row]:
        """See `average_rows`."""
        return average_rows(rows)


def average_rows(rows: Sequence[Row]) -> list[Row]:
    """One row a protocol, metric and reading: the mean over all 13 sets; without value where one has none.

    Args:
        rows: of one model on every set that is there.
    """
    by_figure = dict[tuple[str, ...], list[Row]]()
    for row in rows:
        if row.data is not None:
            by_figure.setdefault((row.model, row.predictor, row.protocol, row.metric), []).append(row)
    return [_average(own) for own in by_figure.values()]


def _average(rows: Sequence[Row]) -> Row:
    values = {row.dataset.removeprefix("scenes-"): row.value for row in rows if row.value is not None}
    lacking = [name for name in SETS if f"odinw-{name}" not in values]
    return replace(
        rows[0],
        dataset="odinw",
        data="rendered" if any(row.data == "rendered" for row in rows) else "real",
        split=f"mean of {len(SETS)} sets",
        value=None if lacking else sum(values.values()) / len(values),
        num_examples=sum(row.num_examples for row in rows),
        num_skipped=sum(row.num_skipped for row in rows),
        ci95=None,
        chance=None,
        constant=None if lacking else _mean([row.constant for row in rows if row.value is not None]),
        seconds=round(sum(row.seconds for row in rows), 3),
        reason=f"the average is over all {len(SETS)} sets; no figure of {', '.join(lacking)}" if lacking else None,
        images_per_second=None,
        texts_sha256=None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def find_annotation_file(folder: Path) -> tuple[str, Path] | None:
    """(split, file) of a set: first split, first file name, first folder by name; None where there is none."""
    for split in SPLITS:
        for name in FILES:
            inside = sorted(folder.rglob(f"{split}/{name}")) or sorted(folder.rglob(f"{split}_{name}"))
            if inside:
                return split, inside[0]
    return None
