"""`python -m cloc.data.check` as it was called until 0.2; goes on for this version."""

import sys

from cloc.check.__main__ import main

__path__: list[str] = []  # modules below it are found by their old names: cloc.moved

if __name__ == "__main__":
    print("python -m cloc.data.check is now: python -m cloc.check", file=sys.stderr)
    sys.exit(main())
