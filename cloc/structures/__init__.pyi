from .batches import (
    PROMPT_KINDS as PROMPT_KINDS,
)
from .batches import (
    Batch as Batch,
)
from .batches import (
    BatchKnowledge as BatchKnowledge,
)
from .batches import (
    ConceptBatch as ConceptBatch,
)
from .batches import (
    ConceptKind as ConceptKind,
)
from .outputs import DetectionOutputs as DetectionOutputs
from .outputs import LossReport as LossReport
from .outputs import Outputs as Outputs
from .samples import Box as Box
from .samples import DataError as DataError
from .samples import Region as Region
from .samples import Sample as Sample
