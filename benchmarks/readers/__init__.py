"""Readers of evaluation files that no converter needs: in come published layouts, out come plain records.

What converters read as well (COCO, LVIS, RefCOCO, GRIT) is read by `cloc.formats`.
"""
