"""Config to parts: the only place that sees both. Everything here takes the run's config and gives a finished part."""

from cloc.factory.concepts import check_concepts, export_dictionary
from cloc.factory.inputs import SCENES, make_batches, make_prompts, make_sources, num_samples, num_workers
from cloc.factory.model import (
    export_detection_size,
    make_empty_model,
    make_model,
    make_model_config,
    make_text_config,
    make_tokenizer,
    make_tower_config,
    scratch_model,
)
from cloc.factory.steps import deepspeed_file, make_losses, make_stepper, model_inputs, tower_scales

__all__ = [
    "SCENES",
    "check_concepts",
    "deepspeed_file",
    "export_detection_size",
    "export_dictionary",
    "make_batches",
    "make_empty_model",
    "make_losses",
    "make_model",
    "make_model_config",
    "make_prompts",
    "make_sources",
    "make_stepper",
    "make_text_config",
    "make_tokenizer",
    "make_tower_config",
    "model_inputs",
    "num_samples",
    "num_workers",
    "scratch_model",
    "tower_scales",
]
