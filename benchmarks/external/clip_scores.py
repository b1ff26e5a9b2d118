"""Our open_clip export in CLIP_benchmark, beside our own `zeroshot` and `retrieval` on the same images and texts.

`python -m benchmarks.external.clip_scores --python neighbours/bin/python`. CLIP_benchmark reads the export as it
stands (`--model local-dir:FOLDER`); ours reads the kit's own export. Scenes are square, so neither pads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluate import find_export
from benchmarks.external.rendered import SPLIT, render_world, write_captions, write_classes
from benchmarks.external.side_by_side import (
    Key,
    add_shared_options,
    compare_figures,
    run,
    run_kit,
    run_other,
    score_ours,
    write_comparison,
)
from cloc.files import read_object

PACKAGES = ("clip-benchmark", "open-clip-torch", "torch", "numpy")
KS = (1, 5, 10)
FIGURES: dict[str, dict[str, Key]] = {
    "single": {
        "acc1": ("zeroshot", "top1"),
        "acc5": ("zeroshot", "top5"),
        "mean_per_class_recall": ("zeroshot", "class_mean"),
    },
    "captions": {
        **{f"text_retrieval_recall@{k}": ("retrieval", f"image-to-text recall@{k}") for k in KS},
        **{f"image_retrieval_recall@{k}": ("retrieval", f"text-to-image recall@{k}") for k in KS},
    },
}
"""CLIP_benchmark's names to ours, by data set."""
TASKS = {"single": "zeroshot_classification", "captions": "zeroshot_retrieval"}


def render(out: Path, images: int) -> Path:
    """The rendered set in both layouts; returns the data root.

    Raises:
        ValueError: `out` holds another world.
    """
    made, root = render_world(out / "world", images), out / "set"
    write_classes(made / "zeroshot" / "single", root / "zeroshot" / "single")
    kept, left = write_captions(made / "coco", root)
    print(f"rendered: {images} single objects, {kept} captioned scenes ({left} left out: their caption occurs twice)")
    return root


def measure_ours(model: Path | str, root: Path, out: Path) -> dict[Key, float | None]:
    """By task and metric; of retrieval the plain counting."""
    found: dict[Key, float | None] = {}
    for row in score_ours(["zeroshot", "retrieval", "--model", model, "--data", root], out):
        if row.task == "zeroshot":
            found[row.task, row.metric] = row.value
        elif "/plain/" in row.protocol:
            found[row.task, f"{row.protocol.rpartition('/')[2]} {row.metric}"] = row.value
    return found


def measure_theirs(python: Path, model: Path, root: Path, out: Path) -> dict[Key, float]:
    """CLIP_benchmark's figures by our names, in fp32."""
    places = {"single": root / "zeroshot" / "single", "captions": root / "captions"}
    found: dict[Key, float] = {}
    for name, place in places.items():
        file = out / f"clip_benchmark-{name}.json"
        command: list[str | Path] = [
            python,
            "-m",
            "clip_benchmark.cli",
            "eval",
            "--dataset",
            f"wds/{name}",
            "--dataset_root",
            place,
        ]
        command += ["--split", SPLIT, "--task", TASKS[name], "--model", f"local-dir:{model.resolve()}"]
        command += [
            "--pretrained",
            "none",
            "--no_amp",
            "--num_workers",
            "0",
            "--recall_k",
            *map(str, KS),
            "--output",
            file,
        ]
        run_other(command, out / f"clip_benchmark-{name}.log")
        metrics = read_object(file, "CLIP_benchmark's results")["metrics"]
        found |= {ours: metrics[name_there] for name_there, ours in FIGURES[name].items()}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when all figures are equal, 1 when one differs, 2 after a message about a mistake."""
    given = make_parser().parse_args(arguments)

    def work(out: Path, versions: dict[str, str]) -> bool:
        model = find_export(given.model)
        root = render(out, given.images)
        run_kit(["-m", "cloc.export", "--format", "open_clip", model, out / "open_clip"])
        mine = measure_ours(model, root, out / "ours")
        rows = compare_figures(mine, measure_theirs(given.python.absolute(), out / "open_clip", root, out))
        return write_comparison(rows, versions, out, model=str(model), images=given.images)

    return run(given, PACKAGES, work)


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.external.clip_scores",
        description="Score an export with CLIP_benchmark and with this kit on one rendered set, and compare. About a "
        "minute. Exit code 1: a figure differs.",
    )
    add_shared_options(made, "neighbours-clip")
    made.add_argument("--model", default="cloc", metavar="FOLDER", help="an export (default: the newest under runs/)")
    made.add_argument("--images", type=int, default=300, metavar="N", help="single objects, and scenes (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
