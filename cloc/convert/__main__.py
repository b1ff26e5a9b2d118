"""`python -m cloc.convert`."""

import sys

from cloc.convert.command import main

if __name__ == "__main__":
    sys.exit(main())
