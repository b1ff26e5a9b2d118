"""What travels between the rooms. Each noun proves itself once, when it is made; nobody re-checks it afterwards.

`Region` and `Sample` live on disk's side of the door (xyxy pixels of the original image); `Batch`, `ConceptBatch` and
the outputs live inside (xyxy in [0, 1] of the model canvas).
"""

from cloc.structures.batches import PROMPT_KINDS, Batch, BatchKnowledge, ConceptBatch, ConceptKind
from cloc.structures.outputs import DetectionOutputs, LossReport, Outputs
from cloc.structures.samples import Box, DataError, Region, Sample

__all__ = [
    "PROMPT_KINDS",
    "Batch",
    "BatchKnowledge",
    "Box",
    "ConceptBatch",
    "ConceptKind",
    "DataError",
    "DetectionOutputs",
    "LossReport",
    "Outputs",
    "Region",
    "Sample",
]
