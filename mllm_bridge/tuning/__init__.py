"""Training after a swap: what is trained, on which batches, and what is handed over. `mllm_bridge.tune` is the door.

The loop is the kit's own (`cloc.engine.train`); this room gives it a batch, a step and a stepper. In come a host folder
and conversations, out goes a host folder that stock transformers loads.
"""
