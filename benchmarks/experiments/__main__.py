"""`python -m benchmarks.experiments PLAN.yaml`."""

import sys

from benchmarks.experiments.command import main

if __name__ == "__main__":
    sys.exit(main())
