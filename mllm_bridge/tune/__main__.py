"""`python -m mllm_bridge.tune`."""

import sys

from mllm_bridge.tune.command import main

if __name__ == "__main__":
    sys.exit(main())
