"""Which readouts a model gets."""

from __future__ import annotations

from benchmarks.predictors.crop import CropReadout
from benchmarks.predictors.dense import RoiAlignReadout, ValueReadout
from benchmarks.predictors.encoder import EncoderReadout
from benchmarks.predictors.loading import LoadedExport
from benchmarks.predictors.prompter import PrompterReadout

CLIP_ONLY = (RoiAlignReadout, ValueReadout, CropReadout)


def make_readouts(loaded: LoadedExport) -> list[EncoderReadout]:
    """The Prompter's readout where there is a Prompter; else three, of which a comparison takes the best."""
    if loaded.model.has_prompter:
        return [PrompterReadout(loaded)]
    return [readout(loaded) for readout in CLIP_ONLY]
