"""Ablations: a plan of arms and seeds in; every run, a table with spread and a verdict for each claim out.

Starts `cloc/pretrain.py` and `benchmarks/run.py` as processes; knows nothing of models or losses.
"""
