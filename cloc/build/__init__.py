"""Config to parts: the only place that sees both. Everything here takes the run's config and gives a finished part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
    SwinConfig,
)

from cloc import comm
from cloc.build import concepts, teacher
from cloc.config import REPOSITORY, Config
from cloc.data.alternation import Alternation
from cloc.data.loader import Source, StepBatches, check_sources
from cloc.data.prompts import PromptDraw
from cloc.data.scenes import WORLD_CARD, WorldSpec, ensure_scenes, preset
from cloc.data.tables import open_samples
from cloc.engine import Losses
from cloc.losses.distillation import distillation
from cloc.losses.objectives import Objective, RegionTerms, make_objective, total
from cloc.losses.pairs import Form
from cloc.models import start
from cloc.models.configuration import ClocConfig, ClocVisionConfig
from cloc.models.detection import ClocForObjectDetection
from cloc.models.modeling import ClocModel
from cloc.models.timm_source import timm_config
from cloc.models.tower import image_side, patch_grid
from cloc.optim import layer_scales, make_adamw, parameter_groups
from cloc.stepper import DeepSpeedStepper, Stepper, TorchStepper, switches
from cloc.stepper.cached import CachedStepper, JoinedBatch
from cloc.structures import Batch, LossReport
from cloc.text import load_tokenizer

TERMS = ("image_text", "region_text", "grounding", "distillation")
"""Terms of CLOC's losses that have a weight in the config."""

SCENES = "scenes"
"""The reserved word for the quickstart's rendered world in `data.path`."""
DETECTION_SCENES = "detection_scenes"
"""Its sibling for the Detection wing, with a folder: `detection_scenes/pairs`."""


def data_root() -> Path:
    """Where data lies: $CLOC_DATA, else `data/` in the current folder."""
    return Path(os.environ.get("CLOC_DATA", "data"))


def make_sources(config: Config) -> list[Source]:
    """Open the shards; the rendered world is made by the main rank where it is missing.

    Raises:
        ValueError: a path holds no shards.
    """
    words = {Path(entry.path).parts[:1] for entry in config.data}
    for word, spec in ((SCENES, WorldSpec()), (DETECTION_SCENES, preset("detection"))):
        if (word,) in words and comm.is_main() and not (data_root() / word / WORLD_CARD).is_file():
            ensure_scenes(data_root() / word, spec)
    comm.barrier()
    paths = [_rendered(entry.path) for entry in config.data]
    sources = [
        Source(open_samples(path, entry.kind), entry.batch_size) for path, entry in zip(paths, config.data, strict=True)
    ]
    check_sources(sources, comm.world_size())
    return sources


def _rendered(path: str) -> Path | str:
    """Where the shards of a path lie: a reserved word stands for a rendered world under the data root."""
    if path == SCENES:
        return data_root() / SCENES / "train"
    return data_root() / path if Path(path).parts[:1] == (DETECTION_SCENES,) else path


def make_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """The tokenizer, cutting at the text tower's context."""
    tokenizer = load_tokenizer(config.model.text.tokenizer)
    tokenizer.model_max_length = config.model.text.context
    return tokenizer


def make_tower_config(config: Config) -> PreTrainedConfig:
    """The vision tower's config: from the starting weights, else from the run's numbers."""
    vision = config.model.vision
    if vision.source is not None:
        return start.tower_config(vision.source, vision.image_size, vision.timm_args)
    if vision.timm is not None:
        return timm_config(vision.timm, vision.image_size, vision.timm_args)
    side = 224 if vision.image_size is None else vision.image_size
    if vision.depths is not None:
        return SwinConfig(
            image_size=side,
            patch_size=vision.patch_size,
            embed_dim=vision.width,
            depths=list(vision.depths),
            num_heads=[vision.heads * 2**stage for stage in range(len(vision.depths))],
            window_size=vision.window,
            mlp_ratio=vision.mlp_ratio,
            hidden_act=vision.hidden_act,
            drop_path_rate=vision.drop_path,
        )
    kind = CLIPVisionConfig if vision.style == "clip" else SiglipVisionConfig
    return kind(
        hidden_size=vision.width,
        intermediate_size=int(vision.width * vision.mlp_ratio),
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=side,
        patch_size=vision.patch_size,
        hidden_act=vision.hidden_act,
    )


def make_text_config(config: Config, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The text tower's config: from the starting weights, else from the run's numbers."""
    text = config.model.text
    if text.source is not None:
        theirs = start.text_config(text.source)
        if theirs.max_position_embeddings < text.context or theirs.vocab_size < len(tokenizer):
            raise ValueError(
                f"model.text.source {text.source}: has {theirs.max_position_embeddings} positions and "
                f"{theirs.vocab_size} tokens, the run asks for {text.context} and {len(tokenizer)}; "
                f"set model.text.context={theirs.max_position_embeddings}, or its own model.text.tokenizer"
            )
        return theirs
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text.width,
        intermediate_size=int(text.width * text.mlp_ratio),
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        max_position_embeddings=text.context,
        hidden_act=text.hidden_act,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_model_config(config: Config, tokenizer: PreTrainedTokenizerBase) -> ClocConfig:
    """The model's own config; no weight is made or loaded."""
    prompter = config.model.prompter
    vision_config = ClocVisionConfig(
        tower=make_tower_config(config).to_dict(),
        projection_dim=config.model.embed_dim,
        has_prompter=config.objective in ("cloc", "joint"),
        prompter_kind=prompter.kind,
        prompter_mlp_ratio=prompter.mlp_ratio,
        prompter_pool=prompter.pool,
        prompter_token_positions=prompter.token_positions,
        prompter_max_cycles=prompter.max_cycles,
        prompter_prompts=list(prompter.prompts),
    )
    return ClocConfig(
        vision_config=vision_config.to_dict(),
        text_config=make_text_config(config, tokenizer).to_dict(),
        logit_scale_init_value=config.model.logit_scale_init,
        logit_bias_init_value=config.model.logit_bias_init if config.loss.form == "sigmoid" else None,
        share_temperature=config.model.share_temperature,
        objective=config.objective,
        detector_config=concepts.detector_config(config).to_dict() if config.alternates else None,
    )


def make_model(config: Config, tokenizer: PreTrainedTokenizerBase) -> tuple[ClocModel, list[str]]:
    """The model with its starting weights, and what was loaded from where."""
    model = scratch_model(make_model_config(config, tokenizer), config.run.seed)
    if config.model.vision.position_init == "sincos":
        torch.manual_seed(config.run.seed)
        start.sincos_start(model)
    notes = [] if config.model.source is None else start.start_whole(model, config.model.source)
    if config.model.vision.source is not None:
        notes += start.start_vision(model, config.model.vision.source)
    if config.model.text.source is not None:
        notes += start.start_text(model, config.model.text.source)
    return model, notes or ["all weights from scratch"]


def scratch_model(model_config: ClocConfig, seed: int) -> ClocModel:
    """A model whose towers start alike with and without a Prompter, so that objectives are compared from one start."""
    torch.manual_seed(seed)
    detects = model_config.detector_config is not None
    model = ClocForObjectDetection(model_config) if detects else ClocModel(model_config)
    if detects or model_config.vision_config.has_prompter:
        plain = ClocConfig(**model_config.to_dict())
        plain.vision_config.has_prompter, plain.detector_config = False, None
        torch.manual_seed(seed)
        model.load_state_dict(ClocModel(plain).state_dict(), strict=False)
    return model


def make_batches(
    config: Config, sources: list[Source], tokenizer: PreTrainedTokenizerBase, first_step: int
) -> StepBatches | Alternation:
    """The batches of this rank from an optimiser step on."""
    if config.alternates:
        return concepts.make_alternation(
            config, sources, tokenizer, first_step, make_tower_config(config), make_prompts(config)
        )
    each = config.train.accumulation
    return StepBatches(
        sources,
        tokenizer,
        image_side(make_tower_config(config)),
        config.loss.regions_per_image if config.objective != "clip" else 0,
        config.run.seed,
        comm.rank(),
        comm.world_size(),
        first_step * each,
        config.steps * each,
        prompts=make_prompts(config),
    )


def make_prompts(config: Config) -> PromptDraw | None:
    """What regions are asked with in training; None where it is their box alone."""
    kinds = config.model.prompter.prompts
    if kinds == ("box",) or config.objective not in ("cloc", "joint"):
        return None
    return PromptDraw(kinds, patch_grid(make_tower_config(config)))


def num_workers(config: Config) -> int:
    """Loading processes of this rank."""
    if config.run.workers != "auto":
        return config.run.workers
    return min(4, max(1, len(os.sched_getaffinity(0)) // comm.world_size() - 1))


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


def find_device(config: Config) -> str:
    """`cpu` or `cuda`.

    Raises:
        ValueError: cuda is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if config.run.device == "cuda" and not there:
        raise ValueError("run.device=cuda: this torch sees no CUDA device; use run.device=auto or cpu")
    return "cuda" if there and config.run.device != "cpu" else "cpu"


def make_stepper(config: Config, model: ClocModel, deepspeed: dict[str, Any] | None) -> Stepper:
    """Plain torch, or DeepSpeed with the given settings, around the model."""
    optim, accumulation, bf16 = config.optim, config.train.accumulation, config.run.precision == "bf16"
    switches.set_attention(model, config.model.attention, bf16)
    if config.train.activation_checkpointing:
        switches.checkpoint_activations(model)
    if config.train.compile:
        switches.compile_towers(model)
    scales = {
        "vision.prompter.": optim.prompter_lr_scale,
        "vision.box_head.": optim.prompter_lr_scale,
        "text": optim.text_lr_scale,
    }
    scales = {**tower_scales(model, optim.layer_decay, optim.text_lr_scale), **scales}
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
    return CachedStepper(stepper, accumulation, _inputs) if config.train.cached else stepper


def tower_scales(model: ClocModel, decay: float, text_scale: float) -> dict[str, float]:
    """Rates of the layers of both towers over the base rate, by name; none where all are equal."""
    if decay == 1:
        return {}
    found = {}
    for part, scale in (("vision.tower", 1.0), ("text", text_scale)):
        names = [f"{part}.{name}" for name, _ in model.get_submodule(part).named_parameters()]
        found |= {name: scale * value for name, value in layer_scales(names, decay).items()}
    return found


def export_detection_size(config: Config) -> tuple[int, int] | None:
    """(short, long) side of a detection image in pixels, for the export's processor; None without a detector."""
    return concepts.detection_size(config, make_tower_config(config)) if config.alternates else None


def make_losses(config: Config, stepper: Stepper, taught_by: teacher.Teacher | None = None) -> Losses:
    """One forward and the objective's losses; `taught_by` comes from `make_teacher`, before the stepper was made."""
    assert (taught_by is not None) == (config.loss.distillation > 0)
    form = Form(config.loss.form, config.loss.chunk)
    settings = RegionTerms(config.loss.filter_threshold, config.loss.filter_warmup, form)
    objective = make_objective("clip" if config.objective == "clip" else "cloc", settings)
    weights = {name: getattr(config.loss, name) for name in TERMS}
    inputs = _region_inputs if config.alternates else _inputs
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


def _region_inputs(batch: Batch) -> dict[str, Any]:
    """The arguments of a model that detects as well."""
    inputs = _inputs(batch)
    return {"pixel_values": inputs.pop("pixel_values"), "region_inputs": inputs}


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """The model's arguments of a batch."""
    return {
        "pixel_values": batch.pixel_values,
        "caption_ids": batch.caption_ids,
        "caption_attention": batch.caption_attention,
        "boxes": batch.boxes,
        "boxes_mask": batch.boxes_mask,
        "phrase_ids": batch.phrase_ids,
        "phrase_attention": batch.phrase_attention,
        "phrase_of_region": batch.phrase_of_region,
        "unique_in_image": batch.unique_in_image,
        **({} if batch.prompt_kinds is None else _prompts(batch)),
    }


def _prompts(batch: Batch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in ("prompt_kinds", "prompt_places", "prompt_cover")}
