"""Idefics3 (`Idefics3ForConditionalGeneration`): SigLIP's tensors under its own tower class, by name."""

from __future__ import annotations

from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
)

from mllm_bridge.hosts.named import NamedHost


class Idefics3(NamedHost):
    """Takes SigLIP towers."""

    model_type = "idefics3"
    model_class = Idefics3ForConditionalGeneration
    processor_class = Idefics3Processor
    tower_type = "idefics3_vision"


IDEFICS3 = Idefics3()
