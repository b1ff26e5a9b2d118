"""The report of a run as one HTML page: tables, curves, examples drawn on their images, similarity maps.

From a run to what the page holds: `collect.py`. Order to read: `page.py`, `report.html`, `examples.py`.
"""
