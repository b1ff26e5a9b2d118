"""Put another vision tower into an MLLM: plan, write, verify, report. `python -m mllm_bridge.swap`, or `swap(...)`."""

from typing import Any

from cloc.moved import find_moved

__all__ = ["swap"]


def __getattr__(name: str) -> Any:
    """`swap`, loaded when it is asked for: the parts of this package import each other without the command."""
    if name == "swap":
        from mllm_bridge.swap.command import swap

        return swap
    return find_moved(__name__, name)
