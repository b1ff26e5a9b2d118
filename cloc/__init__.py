"""The front door: the public names. Importing it registers the model classes with transformers' Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)

from cloc.losses.alignment import focal_alignment, focal_alignment_plain
from cloc.losses.chunked import contrast_chunked
from cloc.losses.contrastive import contrast
from cloc.model_folders import never_ask
from cloc.models.classification import ClocForZeroShotImageClassification
from cloc.models.configuration import ClocConfig, ClocVisionConfig
from cloc.models.detection import ClocForObjectDetection
from cloc.models.detection_processing import ClocDetectionImageProcessor
from cloc.models.modeling import ClocModel, ClocVisionModel, ClocVisionOutput
from cloc.models.processing import ClocProcessor
from cloc.structures import Batch, DataError, Outputs, Region, Sample
from cloc.version import __version__

never_ask()
AutoConfig.register("cloc", ClocConfig, exist_ok=True)
AutoConfig.register("cloc_vision_model", ClocVisionConfig, exist_ok=True)
AutoModel.register(ClocConfig, ClocModel, exist_ok=True)
AutoModel.register(ClocVisionConfig, ClocVisionModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(ClocConfig, ClocForZeroShotImageClassification, exist_ok=True)
AutoModelForZeroShotObjectDetection.register(ClocConfig, ClocForObjectDetection, exist_ok=True)
AutoImageProcessor.register(
    ClocConfig, image_processor_classes={"torchvision": ClocDetectionImageProcessor}, exist_ok=True
)
AutoProcessor.register(ClocConfig, ClocProcessor, exist_ok=True)

__all__ = [
    "Batch",
    "ClocConfig",
    "ClocDetectionImageProcessor",
    "ClocForObjectDetection",
    "ClocForZeroShotImageClassification",
    "ClocModel",
    "ClocProcessor",
    "ClocVisionConfig",
    "ClocVisionModel",
    "ClocVisionOutput",
    "DataError",
    "Outputs",
    "Region",
    "Sample",
    "__version__",
    "contrast",
    "contrast_chunked",
    "focal_alignment",
    "focal_alignment_plain",
]
