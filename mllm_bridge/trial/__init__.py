"""The tiny-MLLM trial: does a CLOC tower see regions better inside an MLLM, and do region tokens help?

`python -m mllm_bridge.trial` trains a small language model from nothing on the rendered world's conversations, once for
each arm and seed, and writes one table. It says nothing about real photographs.
"""
