"""Service room: the run's config. One YAML, typed, frozen and strict; checked before anything is loaded.

A file says only what differs from the defaults here. `a.b=c` on the command line overrides one field.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

REPOSITORY = Path(__file__).resolve().parent.parent


class Strict(BaseModel):
    """Unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunConfig(Strict):
    """Where and how the run takes place."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9._-]+$", description="folder under runs/; a taken name becomes NAME-2"
    )
    seed: int = Field(0, ge=0, description="decides initial weights, the order of samples and every draw")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast; weights and losses stay fp32")
    workers: int | Literal["auto"] = Field(
        "auto", description="loading processes a rank; auto: cores / ranks - 1, at most 4"
    )


class DataConfig(Strict):
    """One source of training samples."""

    path: str = Field(description="shards, Parquet or a saved dataset; `scenes`: the rendered world, made if missing")
    kind: Literal["pairs", "regions"] = Field("regions", description="what the shards hold: pairs have no regions")
    batch_size: int = Field(32, ge=1, description="samples a step takes from it, over all ranks")


class VisionConfig(Strict):
    """The vision tower; with `source` every field but the Prompter's comes from there."""

    source: str | None = Field(None, description="start from a transformers folder or hub name; none: from scratch")
    style: Literal["clip", "siglip"] = Field("clip", description="clip: CLS pooling; siglip: attention pooling")
    image_size: int = Field(224, ge=8, description="side of the canvas in pixels, a multiple of patch_size")
    patch_size: int = Field(16, ge=2, description="pixels")
    width: int = Field(768, ge=8)
    layers: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    hidden_act: str = Field("gelu", description="activation of the MLP; OpenAI's weights use quick_gelu")
    position_init: Literal["sincos", "normal"] = Field(
        "sincos",
        description="how positions start from scratch; the paper is silent, small runs learn faster with sincos",
    )


class TextConfig(Strict):
    """The text tower (a CLIP text transformer)."""

    source: str | None = Field(None, description="start from a transformers folder or hub name; none: from scratch")
    tokenizer: str = Field("clip", description="clip: CLIP's vocabulary, built in; else a folder or hub name")
    width: int = Field(512, ge=8)
    layers: int = Field(12, ge=1)
    heads: int = Field(8, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    context: int = Field(77, ge=4, description="tokens; longer texts are cut")
    hidden_act: str = "gelu"


class PrompterConfig(Strict):
    """The paper is silent on these; design choices with their reasons."""

    mlp_ratio: int = Field(4, ge=1)
    pool: Literal["prompt", "all"] = Field("prompt", description="prompt: an embedding depends on its own prompt only")
    token_positions: bool = Field(True, description="add the code of each patch's corners; decisive for small runs")
    max_cycles: float = Field(16.0, gt=0, description="highest frequency of the box code, cycles over the canvas")


class ModelConfig(Strict):
    """Shapes of the model."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    prompter: PrompterConfig = PrompterConfig()
    embed_dim: int = Field(512, ge=8, description="E, width of the space shared by images, regions and texts")
    logit_scale_init: float = Field(2.6592, description="natural logarithm of the first inverse temperature")
    share_temperature: bool = Field(False, description="one temperature for the image and the region loss")


class LossConfig(Strict):
    """Weights and settings of the losses (CLOC Eq. 1 to 4)."""

    image_text: float = Field(1.0, ge=0, description="weight of L_CLIP")
    region_text: float = Field(1.0, ge=0, description="weight of L_CLOC, times the share of images with regions")
    grounding: float = Field(1.0, ge=0, description="weight of L_grounding, times the share of images with regions")
    regions_per_image: int = Field(4, ge=1, description="M, regions drawn an image and step")
    filter_threshold: float = Field(
        0.9, gt=0, le=1, description="texts closer than this are no negatives of each other"
    )
    filter_warmup: int = Field(0, ge=0, description="steps before the cosine filter starts; equal strings always go")


class OptimConfig(Strict):
    """AdamW with linear warm-up and cosine decay (CLOC Table A)."""

    lr: float = Field(5e-4, gt=0)
    text_lr_scale: float = Field(1.0, gt=0, description="the text tower's rate over lr")
    prompter_lr_scale: float = Field(1.0, gt=0, description="the Prompter's and box head's rate over lr")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    eps: float = Field(1e-6, gt=0, description="the paper is silent; CLIP's value")
    weight_decay: float = Field(0.2, ge=0)
    warmup_steps: int = Field(2000, ge=0)
    clip_grad_norm: float = Field(1.0, gt=0, description="the global gradient norm is cut here")


class TrainConfig(Strict):
    """How long, and what is kept."""

    steps: int | None = Field(None, ge=1, description="optimiser steps; give this or samples")
    samples: int | None = Field(None, ge=1, description="samples to see, rounded up to whole steps")
    accumulation: int = Field(1, ge=1, description="batches a step; each has its own negatives")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1)
    deepspeed: str = Field(
        "auto", description="a DeepSpeed JSON; none; auto: ZeRO 1 under the deepspeed launcher, else none"
    )
    log_every: int = Field(20, ge=1, description="steps between lines on the console; metrics.jsonl has every step")

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.steps is None) == (self.samples is None):
            raise ValueError("give exactly one of train.steps and train.samples")
        return self


class ExportConfig(Strict):
    """What the finished folder says of itself."""

    licence: str = Field("unknown", description="licence of the weights, for the model card")


class Config(Strict):
    """A whole run."""

    run: RunConfig = RunConfig()
    data: tuple[DataConfig, ...] = Field(min_length=1)
    model: ModelConfig = ModelConfig()
    objective: Literal["clip", "cloc"] = Field("cloc", description="clip: the baseline, no Prompter made or trained")
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig
    export: ExportConfig = ExportConfig()

    @property
    def batch_size(self) -> int:
        """Samples in one batch over all ranks and sources."""
        return sum(source.batch_size for source in self.data)

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.samples is not None
        return -(-self.train.samples // (self.batch_size * self.train.accumulation))


def find_config(path: str) -> Path:
    """A config by path, looked for from the current folder, then from the repository."""
    for candidate in (Path(path), REPOSITORY / path):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "configs").glob("*.yaml"))
    raise ValueError(f"config {path}: no such file; known: {', '.join(known) or 'none'}")


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `a.b=c` overrides.

    Raises:
        ValueError: the file is missing or no mapping, an override is malformed, a key is unknown (the nearest known one
            is named), or a value does not fit.
    """
    file = find_config(path)
    raw = _yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: expected a mapping with keys such as data and train, got {type(raw).__name__}")
    for override in overrides:
        _apply(raw, override)
    return parse_config(raw, str(file))


def parse_config(raw: dict[str, Any], where: str = "config") -> Config:
    """A config from plain data; see `load_config` for the errors."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {_explain(raw, e)}" for e in error.errors())) from None


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: expected YAML; {' '.join(str(error).split())}") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ValueError(f"override {override!r}: expected KEY=VALUE, such as loss.regions_per_image=2")
    *parents, last = name.split(".")
    place: Any = raw
    for part in parents:
        if isinstance(place, list):
            place = place[_position(place, part, override)]
        elif isinstance(place, dict):
            if not isinstance(place.get(part), (dict, list)):
                place[part] = {}
            place = place[part]
        else:
            raise ValueError(f"override {override!r}: expected fields at {part!r}, got {place!r}")
    parsed = _yaml(value, f"override {override!r}") if value else None
    if isinstance(place, list):
        place[_position(place, last, override)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise ValueError(f"override {override!r}: expected fields at {last!r}, got {place!r}")


def _position(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ValueError(f"override {override!r}: expected a position from 0 to {len(items) - 1}, got {part!r}")
    return int(part)


def _explain(raw: dict[str, Any], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    name = ".".join(location) or "config"
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}" + (
            f" (got {error['input']!r})" if location and error["type"] != "missing" else ""
        )
    fields = _fields_at(error["loc"][:-1])
    near = difflib.get_close_matches(location[-1], fields, n=1, cutoff=0.0)
    return f"{name}: unknown key; the nearest known one is {'.'.join([*location[:-1], near[0]])!r}"


def _fields_at(location: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        if isinstance(part, str):
            annotation = DataConfig if part == "data" else model.model_fields[part].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
    return list(model.model_fields)


def dump_config(config: Config) -> str:
    """The resolved config as YAML, with every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
