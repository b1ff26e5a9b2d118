"""What a model can do, measured: models, tasks and data in, one row a figure out.

It uses finished exports and the kit's public names. Order to read: `rows.py` (what a result is), `metrics/`,
`predictors/contract.py`, `tasks/`, `runner.py`, `evaluate.py`, `cli.py`; `README.md` says how to run a benchmark.
"""
