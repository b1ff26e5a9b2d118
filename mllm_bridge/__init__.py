"""The bridge: an encoder of ours in someone else's MLLM.

In comes a host (a transformers MLLM) and an encoder (an export, or any CLIP or SigLIP folder); out goes a host folder
that any transformers installation loads. `mllm_bridge.swap.swap` does it from Python, `mllm_bridge.swap.verify` proves
it, `mllm_bridge/hosts/` knows the families. Of `cloc` it uses exports, the public names, towers, formats, training and
the small modules that all share.
"""

from cloc import registration


def _register_wrapper() -> None:
    from cloc.towers import wrapper  # noqa: F401  # which registers its classes


registration.install({f"{registration.AUTO}.modeling_auto": _register_wrapper})
