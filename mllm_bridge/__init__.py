"""The guest wing: a tower of ours in someone else's MLLM.

In comes a host (a transformers MLLM) and an encoder (an export, or any CLIP or SigLIP folder); out goes a host folder
that any transformers installation loads. `mllm_bridge.swap.swap` is the door, `mllm_bridge.proof` the proof,
`mllm_bridge/hosts/` knows the families. Only `cloc`'s front door, ground floor and service rooms are used here.
"""

from mllm_bridge.tower import wrapper as wrapper  # registers its class, for hosts that hold a wrapped tower
