"""Make the other programs' environment: `python -m benchmarks.external.environment --out neighbours`.

They bring sixty packages that the kit does not want, so they never go into the kit's environment. The new one reads the
kit's packages through a `.pth` file: torch and transformers are there once, and both sides run on the same versions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
LINK = "kit.pth"
"""Names the kit's packages to the new environment, which looks at its own ones first."""


def make(out: Path) -> Path:
    """An empty environment beside the running one, and the link between them.

    Returns:
        Its interpreter.

    Raises:
        ValueError: `out` is there already.
    """
    if out.exists():
        raise ValueError(f"--out: {out} is already there; give a new folder, or use its bin/python as it is")
    venv.create(out, with_pip=True)
    purelib = sysconfig.get_path("purelib", "venv", {"base": str(out), "platbase": str(out)})
    (Path(purelib) / LINK).write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return make_environment(out)


def make_environment(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / "bin" / "python"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.external.environment",
        description="Make an environment with CLIP_benchmark and lmms-eval that shares the kit's torch and "
        "transformers. Takes about 1 GB and a few minutes; needs a package index.",
    )
    made.add_argument("--out", type=Path, default=Path("neighbours"), metavar="DIR", help="new folder (%(default)s)")
    given = made.parse_args(arguments)
    try:
        python = make(given.out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    installed = subprocess.run([python, "-m", "pip", "install", "-r", REQUIREMENTS], check=False)
    if installed.returncode:
        print(f"error: pip could not install {REQUIREMENTS}; its own message stands above", file=sys.stderr)
        return 2
    print(f"made {python}; hand it to the scripts as --python {python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
