"""`python -m cloc.data.scenes`: render a world."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cloc.data.scenes.build import ensure_scenes, read_world
from cloc.data.scenes.world import WorldSpec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloc.data.scenes",
        description="Render a world of scenes: training shards (OUT/train) and evaluation files in the layouts of "
        "COCO, LVIS and RefCOCO. Equal parameters give equal files; a world that is there is left alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    spec = WorldSpec()
    parser.add_argument("--out", type=Path, default=Path("data/scenes"), help="folder to make; a data root of its own")
    parser.add_argument("--train", type=int, default=spec.train, help="training scenes")
    parser.add_argument("--val", type=int, default=spec.val, help="scenes in the COCO and LVIS files")
    parser.add_argument("--refcoco", type=int, default=spec.refcoco, help="scenes in the RefCOCO files")
    parser.add_argument("--size", type=int, default=spec.size, help="side of a scene in pixels")
    parser.add_argument("--seed", type=int, default=spec.seed, help="another seed gives another world")
    parser.add_argument("--sprites", default=spec.sprites, help="sprite set to compose scenes of")
    parser.add_argument("--shard-size", type=int, default=spec.shard_size, help="scenes a training shard")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 for a mistake in the arguments."""
    args = vars(_parser().parse_args(arguments))
    out, workers = args.pop("out"), args.pop("workers")
    try:
        train = ensure_scenes(out, WorldSpec(**args), workers)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = read_world(out)["counts"]
    for part, count in counts.items():
        print(f"{part}: " + ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in count.items()))
    print(f"training shards: {train}\nevaluation files (a data root): {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
