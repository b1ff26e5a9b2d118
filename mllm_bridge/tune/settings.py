"""The config of a tuning run: one YAML, strict and frozen; `a.b=c` on the command line overrides one field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from cloc.box_text import Scale
from cloc.config import RunConfig, Strict, find_config, read_config

FOLDER = "configs/bridge"
"""Where the configs that come with the kit lie, from the repository."""


class DataSettings(Strict):
    """One file of conversations."""

    path: str = Field(description="conversations in LLaVA's JSON or JSON lines; `scenes`: the rendered world's")
    images: str | None = Field(None, description="folder of the images; none: the file's own folder")


class PartSettings(Strict):
    """What is trained; everything else is frozen and takes no optimiser state."""

    projector: bool = Field(True, description="what lies between tower and language model")
    language: Literal["frozen", "lora", "full"] = Field("frozen", description="lora: adapters through peft")
    tower: bool = Field(False, description="the vision tower's own weights, at optim.tower_lr_scale")


class LoraSettings(Strict):
    """Adapters on the linear layers of the language model (LLaVA-1.5's numbers)."""

    rank: int = Field(128, ge=1)
    alpha: int = Field(256, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    tower: bool = Field(False, description="put adapters on the tower too")


class RegionSettings(Strict):
    """Region tokens: `<region>` in a question is an embedding of the export's Prompter."""

    export: str | None = Field(
        None, description="the export whose tower is in the host; none: as the host has it, or boxes as text"
    )
    train_prompter: bool = Field(False, description="move the Prompter too, not only the region's projector")


class PlaceSettings(Strict):
    """How the host writes boxes; see `cloc.box_text`. A host that declares a convention keeps it."""

    scale: Scale = "unit"
    padded: bool = True
    digits: int = 3
    bins: int = 32


class OptimSettings(Strict):
    """AdamW with linear warm-up and cosine decay (LLaVA-1.5)."""

    lr: float = Field(2e-4, gt=0)
    projector_lr_scale: float = Field(1.0, gt=0, description="the projector's rate over lr")
    tower_lr_scale: float = Field(0.1, gt=0, description="the tower's rate over lr")
    region_lr_scale: float = Field(1.0, gt=0, description="the region module's rate over lr")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of the steps with a rising rate")
    clip_grad_norm: float = Field(1.0, gt=0)


class TrainSettings(Strict):
    """How long, and what is kept."""

    steps: int | None = Field(None, ge=1, description="optimiser steps; give this or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the conversations, rounded up to whole steps")
    batch_size: int = Field(128, ge=1, description="conversations a batch, over all ranks")
    accumulation: int = Field(1, ge=1, description="batches a step")
    max_tokens: int = Field(2048, ge=8, description="longer conversations are left out and counted")
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    cache_tower: bool = Field(False, description="keep a frozen tower's features in memory; for small hosts")
    gradient_checkpointing: bool = Field(False, description="recompute activations, for large hosts")
    deepspeed: str = Field("none", description="a DeepSpeed JSON, or none")
    log_every: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of train.steps and train.epochs")
        return self


class ResultSettings(Strict):
    """What the finished folder holds."""

    form: Literal["merged", "adapters"] = Field("merged", description="adapters in the weights, or beside them")


class TuneConfig(Strict):
    """A whole tuning run."""

    run: RunConfig = RunConfig(name="tune")
    host: str = Field("newest", description="a host's folder or hub name; newest: the newest swap, made if missing")
    data: tuple[DataSettings, ...] = Field(min_length=1)
    parts: PartSettings = PartSettings()
    lora: LoraSettings = LoraSettings()
    regions: RegionSettings = RegionSettings()
    places: PlaceSettings = PlaceSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings
    result: ResultSettings = ResultSettings()

    @model_validator(mode="after")
    def _something_to_do(self) -> TuneConfig:
        parts = self.parts
        if not (parts.projector or parts.tower or parts.language != "frozen" or self.regions.export):
            raise ValueError("parts: nothing is trained; set parts.projector=true or parts.language=lora")
        if self.result.form == "adapters" and parts.language != "lora":
            raise ValueError("result.form=adapters needs parts.language=lora; there are no adapters otherwise")
        if self.lora.tower and parts.language != "lora":
            raise ValueError("lora.tower needs parts.language=lora")
        if self.train.cache_tower and (parts.tower or self.lora.tower):
            raise ValueError("train.cache_tower: the tower moves, so its features cannot be kept")
        if self.lora.tower and parts.tower:
            raise ValueError("lora.tower and parts.tower: the tower gets adapters or moves itself, not both")
        return self

    def steps(self, conversations: int) -> int:
        """Optimiser steps of the run on so many conversations."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None
        return -int(-self.train.epochs * conversations // (self.train.batch_size * self.train.accumulation))


def load_settings(path: str, overrides: Sequence[str] = ()) -> TuneConfig:
    """The config of a tuning run; see `cloc.config.find_config` and `read_config` for the errors."""
    return read_config(TuneConfig, find_config(path, FOLDER), overrides)
