"""`python -m benchmarks.experiments.closed_loop`."""

import sys

from benchmarks.experiments.closed_loop.command import main

if __name__ == "__main__":
    sys.exit(main())
