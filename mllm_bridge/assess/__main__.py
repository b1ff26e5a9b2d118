"""`python -m mllm_bridge.assess`."""

import sys

from mllm_bridge.assess.command import main

if __name__ == "__main__":
    sys.exit(main())
