"""`python -m mllm_bridge.box_text FOLDER`: declare how a host writes boxes, see `cloc.box_text`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from cloc import command
from cloc.box_text import FILE, BoxTextFormat, Scale


def main(arguments: Sequence[str] | None = None) -> int:
    """Declare how the host in a folder writes boxes; returns the exit status, see `cloc.command`."""
    parser = argparse.ArgumentParser(
        prog="python -m mllm_bridge.box_text",
        description="Declare how the host in a folder writes boxes in its answers.",
    )
    parser.add_argument("folder", type=Path, help="the host's folder")
    parser.add_argument("--scale", choices=get_args(Scale), required=True, help="what the numbers are")
    parser.add_argument(
        "--padded", action="store_true", help="they refer to the image padded to a square, not to the image"
    )
    parser.add_argument("--digits", type=int, default=3, help="decimals of the scale unit (default: 3)")
    parser.add_argument("--bins", type=int, default=32, help="of the scale bins (default: 32)")
    asked = parser.parse_args(arguments)

    def work() -> None:
        if not (asked.folder / "config.json").is_file():
            raise ValueError(f"{asked.folder}: expected a host's folder with a config.json")
        BoxTextFormat(asked.scale, asked.padded, asked.digits, asked.bins).save(asked.folder)
        print(f"written: {asked.folder / FILE}")

    return command.run(work, loads_models=False)


if __name__ == "__main__":
    sys.exit(main())
