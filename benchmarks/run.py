"""`python benchmarks/run.py [TASK...]`: the command, see `cli.py`. No class is defined here."""

import sys

if __name__ == "__main__":
    try:
        from benchmarks.cli import main
    except ModuleNotFoundError as error:
        if error.name not in ("benchmarks", "cloc"):
            raise
        sys.exit("error: the kit is not installed in this environment; type `pip install -e .` in its folder first")
    sys.exit(main())
