"""Image and region vectors of many images: `python -m cloc.embed IMAGES... --boxes boxes.jsonl --out vectors.parquet`.

Each image is encoded once, whatever the number of its boxes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cloc import command

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    parser = argparse.ArgumentParser(
        prog="python -m cloc.embed",
        description="Write image vectors, and vectors of given boxes, to a file; one encoding for each image. With "
        "--texts, the texts nearest to each of them. A call that was stopped goes on when it is repeated.",
        epilog='A boxes file has lines {"image": "a.jpg", "boxes": [[x0, y0, x1, y1], ...]} in pixels of the image '
        "(with annotation_ids and categories, if wished), or is a COCO instances file. Columns: image, kind (image or "
        "region), region, x0, y0, x1, y1, annotation_id, category, with --texts best_texts and best_scores (cosines), "
        "embedding. The ending of --out says the format: .parquet, .csv (e0, e1, ...; text_1, score_1, ...), .jsonl, "
        ".npz.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, or folders of pictures")
    parser.add_argument("--boxes", type=Path, metavar="FILE", help="boxes to embed, .jsonl or COCO .json")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to write; its ending says the format"
    )
    parser.add_argument("--texts", metavar="TEXTS", help="texts with commas between them, or a file with one a line")
    parser.add_argument("--best", type=int, default=3, help="texts named for each vector (default: %(default)s)")
    parser.add_argument("--model", type=Path, metavar="EXPORT", help="a finished export (default: the newest in runs/)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)

    def work() -> None:
        from transformers.utils.logging import disable_progress_bar

        from cloc.embed.embedding import embed

        disable_progress_bar()
        embed(options)

    return command.run(work, command.GOES_ON)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
