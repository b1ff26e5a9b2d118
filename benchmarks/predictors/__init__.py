"""Ways to read a model, behind one contract, so that all are measured under the same protocol."""
