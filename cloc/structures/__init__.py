"""What travels between the parts. Each proves itself once, when it is made; nobody checks it again afterwards.

`Region` and `Sample` hold xyxy pixels of the original image; `Batch`, `ConceptBatch` and the outputs hold xyxy in
[0, 1] of the model canvas. Samples need no torch, so each name is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
