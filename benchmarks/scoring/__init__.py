"""Scoring apart from predicting: a file of answers, from us or from anyone, and its annotation file; rows come out.

Nothing here imports torch or `cloc` (whose front door loads it). Order to read: `command.py`, `reading.py`,
`detections.py`, `expressions.py`.
"""
