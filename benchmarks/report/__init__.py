"""`report.html`: one file that opens from disk with no network and no script, readable at the width of a phone.

Order to read: `page.py` (what is on it), `gather.py`, `choice.py` (which examples), `examples.py`, `drawing.py`,
`charts.py`, `maps.py`, `training.py`.
"""
