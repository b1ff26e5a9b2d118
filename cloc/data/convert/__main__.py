"""`python -m cloc.data.convert`."""

import sys

from cloc.data.convert.command import main

if __name__ == "__main__":
    sys.exit(main())
