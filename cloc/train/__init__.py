"""Training: the one loop, what a step is made of, checkpoints, runs, and what a run says about itself."""
