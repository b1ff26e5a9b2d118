"""One reader for each official layout, shared by converters and benchmarks.

In come the published files as they are, out come `AnnotatedSet` and `ReferringSet` (read whole) or rows (read one at a
time), with xyxy pixels of the original images. What cannot be used is left out and counted by reason.
"""

from cloc.formats.annotated import AnnotatedImage, AnnotatedSet, Category
from cloc.formats.coco import read_coco
from cloc.formats.grit import GritRow, read_grit
from cloc.formats.lvis import read_lvis
from cloc.formats.odvg import OdvgRow, read_odvg
from cloc.formats.refcoco import Expression, ReferringSet, read_refcoco, refcoco_splits

__all__ = [
    "AnnotatedImage",
    "AnnotatedSet",
    "Category",
    "Expression",
    "GritRow",
    "OdvgRow",
    "ReferringSet",
    "read_coco",
    "read_grit",
    "read_lvis",
    "read_odvg",
    "read_refcoco",
    "refcoco_splits",
]
