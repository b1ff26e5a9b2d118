"""Training after a swap, `python -m mllm_bridge.tune`: what is trained, on which batches, and what is written.

The loop is the kit's own (`cloc.train.engine.train`); this package gives it a batch, a step and a stepper. In come a
host folder and conversations, out goes a host folder that stock transformers loads.
"""
