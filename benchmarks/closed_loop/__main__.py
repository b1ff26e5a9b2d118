"""`python -m benchmarks.closed_loop`."""

import sys

from benchmarks.closed_loop.command import main

if __name__ == "__main__":
    sys.exit(main())
