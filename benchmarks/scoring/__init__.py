"""Scoring apart from predicting: a file of answers, from us or from anyone, and its annotation file; rows come out.

Nothing here loads torch. Order to read: `command.py`, `reading.py`,
`detections.py`, `expressions.py`.
"""
