"""The measuring room: task names in, one table out. A guest of the kit: it uses finished exports and the front door.

Order to read: `rows.py` (what a result is), `metrics/`, `predictors/contract.py`, `tasks/`, `session.py`, `cli.py`.
"""
