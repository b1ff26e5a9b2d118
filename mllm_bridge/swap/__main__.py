"""`python -m mllm_bridge.swap`."""

import sys

from mllm_bridge.swap.command import main

if __name__ == "__main__":
    sys.exit(main())
