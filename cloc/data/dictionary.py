"""`python -m cloc.data.dictionary` as it was called until 0.2; goes on for this version."""

import sys

from cloc.convert.dictionary import main

if __name__ == "__main__":
    print("python -m cloc.data.dictionary is now: python -m cloc.convert.dictionary", file=sys.stderr)
    sys.exit(main())
