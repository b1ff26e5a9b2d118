"""Put another vision tower into an MLLM: plan, write, verify, report. `python -m mllm_bridge.swap`, or `swap(...)`."""

from typing import Any

__all__ = ["swap"]


def __getattr__(name: str) -> Any:
    """`swap`, loaded when it is asked for: the parts of this package import each other without the command."""
    if name == "swap":
        from mllm_bridge.swap.command import swap

        return swap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
