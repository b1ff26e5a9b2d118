"""Which readings a model gets."""

from __future__ import annotations

from benchmarks.predictors.crop import CropReading
from benchmarks.predictors.dense import RoiAlignReading, ValueReading
from benchmarks.predictors.encoder import EncoderReading
from benchmarks.predictors.loading import LoadedModel
from benchmarks.predictors.prompter import PrompterReading

CLIP_ONLY = (RoiAlignReading, ValueReading, CropReading)


def readings_of(loaded: LoadedModel) -> list[EncoderReading]:
    """The Prompter's reading where there is a Prompter; else three, of which a comparison takes the best."""
    if loaded.model.has_prompter:
        return [PrompterReading(loaded)]
    return [reading(loaded) for reading in CLIP_ONLY]
