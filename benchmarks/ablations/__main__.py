"""`python -m benchmarks.ablations PLAN.yaml`."""

import sys

from benchmarks.ablations.command import main

if __name__ == "__main__":
    sys.exit(main())
