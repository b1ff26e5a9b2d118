"""A step: where it runs, what takes it, and the losses of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from cloc import comm
from cloc.config import REPOSITORY, Config
from cloc.factory import concepts, teacher
from cloc.factory.fields import shared_fields
from cloc.losses.objectives import TERMS, Objective, RegionTerms, distillation, make_objective, total
from cloc.losses.pairs import Form
from cloc.models.modeling import ClocModel
from cloc.structures import Batch, LossReport
from cloc.train import memory_options
from cloc.train.engine import Losses
from cloc.train.grad_cache import CachedStepper, JoinedBatch
from cloc.train.optim import layer_scales, make_adamw, parameter_groups
from cloc.train.stepper import DeepSpeedStepper, Stepper, TorchStepper


def deepspeed_file(config: Config, launched: bool) -> Path | None:
    """The DeepSpeed JSON to use, None for plain torch; `launched` says that the deepspeed launcher started us."""
    choice = config.train.deepspeed
    if choice == "none" or (choice == "auto" and (not launched or config.alternates)):
        return None
    if config.alternates:
        raise ValueError(
            f"train.deepspeed {choice}: objective {config.objective} trains one kind of data a step, and DeepSpeed's "
            "flat optimiser would move the branches that rest; use train.deepspeed=none, which every launcher can start"
        )
    name = "configs/deepspeed/zero1.json" if choice == "auto" else choice
    return next((path for path in (Path(name), REPOSITORY / name) if path.is_file()), Path(name))


def make_stepper(config: Config, model: ClocModel, deepspeed: dict[str, Any] | None) -> Stepper:
    """Plain torch, or DeepSpeed with the given settings, around the model."""
    optim, accumulation, bf16 = config.optim, config.train.accumulation, config.run.precision == "bf16"
    memory_options.set_attention(model, config.model.attention, bf16)
    if config.train.activation_checkpointing:
        memory_options.checkpoint_activations(model)
    if config.train.compile:
        memory_options.compile_towers(model)
    scales = {
        "vision.prompter.": optim.prompter_lr_scale,
        "vision.box_head.": optim.prompter_lr_scale,
        "text": optim.text_lr_scale,
    }
    # What starts anew beside a tower with starting weights is no part of them: it learns at the full rate.
    scales = {
        **dict.fromkeys(model.fresh, 1.0),
        **tower_scales(model, optim.layer_decay, optim.text_lr_scale),
        **scales,
    }
    rest = config.train.prompter_warmup_steps
    starts = {"vision.prompter.": 0, "vision.box_head.": 0, "region_logit": 0, "": rest}
    groups = parameter_groups(model, optim.weight_decay, scales, starts, optim.warmup_steps)
    adamw = make_adamw(groups, optim.lr, (optim.beta1, optim.beta2), optim.eps)
    stepper: Stepper
    if config.train.cached and (deepspeed or {}).get("zero_optimization", {}).get("stage") == 3:
        raise ValueError("train.accumulation_mode cached: not under ZeRO 3; use ZeRO 0 to 2, or separate")
    if deepspeed is None:
        stepper = TorchStepper(model, adamw, accumulation, optim.clip_grad_norm, bf16)
    else:
        micro = config.batch_size // comm.world_size()
        stepper = DeepSpeedStepper(model, adamw, deepspeed, micro, accumulation, optim.clip_grad_norm, bf16)
    inputs = partial(model_inputs, ground_all=ground_all(config))
    if config.train.cached:
        return cast("Stepper", CachedStepper(stepper, accumulation, inputs))  # whose forward takes all micro-batches
    return stepper


def ground_all(config: Config) -> bool:
    """Whether the box head answers for every region."""
    return config.loss.grounding_regions == "all"


def tower_scales(model: ClocModel, decay: float, text_scale: float) -> dict[str, float]:
    """Rates of the layers of both towers over the base rate, by name; none where all are equal."""
    if decay == 1:
        return {}
    found = dict[str, float]()
    for part, scale in (("vision.tower", 1.0), ("text", text_scale)):
        names = [f"{part}.{name}" for name, _ in model.get_submodule(part).named_parameters()]
        found |= {name: scale * value for name, value in layer_scales(names, decay).items()}
    return found


def make_losses(config: Config, stepper: Stepper, taught_by: teacher.Teacher | None = None) -> Losses:
    """One forward and the objective's losses; `taught_by` comes from `make_teacher`, before the stepper was made."""
    assert (taught_by is not None) == (config.loss.distillation > 0)
    form = Form(config.loss.form, config.loss.chunk)
    settings = RegionTerms(**shared_fields(config.loss, RegionTerms) | {"ground_all": ground_all(config), "form": form})
    objective = make_objective("clip" if config.objective == "clip" else "cloc", settings)
    weights = {name: getattr(config.loss, name) for name in TERMS}
    inputs = partial(_region_inputs if config.alternates else model_inputs, ground_all=ground_all(config))
    regions = partial(
        _losses, stepper=stepper, objective=objective, weights=weights, inputs=inputs, taught_by=taught_by
    )
    return concepts.make_concept_losses(config, stepper, regions) if config.alternates else regions


def _losses(
    batch: Batch | JoinedBatch,
    step: int,
    *,
    stepper: Stepper,
    objective: Objective,
    weights: Mapping[str, float],
    inputs: Callable[[Batch], dict[str, Any]],
    taught_by: teacher.Teacher | None,
) -> tuple[LossReport, torch.Tensor]:
    taught = None if taught_by is None else taught_by(batch)
    if isinstance(batch, JoinedBatch):
        assert isinstance(stepper, CachedStepper)
        outputs, batch = stepper.forward(batch.parts), batch.whole
    else:
        outputs = stepper.forward(**inputs(batch))
    report = objective(outputs, batch, step)
    if taught is not None:
        held, _ = distillation(outputs.image_embeds, taught)
        report = replace(report, terms={**report.terms, "distillation": held})
    return report, total(report, weights)


def _region_inputs(batch: Batch, ground_all: bool = False) -> dict[str, Any]:
    """The arguments of a model that detects as well."""
    inputs = model_inputs(batch, ground_all)
    return {"pixel_values": inputs.pop("pixel_values"), "region_inputs": inputs}


def model_inputs(batch: Batch, ground_all: bool = False) -> dict[str, torch.Tensor]:
    """The model's arguments of a batch; with `ground_all` every region feeds the grounding loss."""
    return {
        "pixel_values": batch.pixel_values,
        "caption_ids": batch.caption_ids,
        "caption_attention": batch.caption_attention,
        "boxes": batch.boxes,
        "boxes_mask": batch.boxes_mask,
        "phrase_ids": batch.phrase_ids,
        "phrase_attention": batch.phrase_attention,
        "phrase_of_region": batch.phrase_of_region,
        "unique_in_image": torch.ones_like(batch.unique_in_image) if ground_all else batch.unique_in_image,
        **({} if batch.prompt_kinds is None else _prompts(batch)),
    }


def _prompts(batch: Batch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in ("prompt_kinds", "prompt_coords", "prompt_patch_coverage")}
