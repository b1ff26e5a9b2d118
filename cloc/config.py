"""Service room: the run's config. One YAML, typed, frozen and strict; checked before anything is loaded.

A file says only what differs from the defaults here. `a.b=c` on the command line overrides one field.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cloc.overrides import apply_override, read_yaml

REPOSITORY = Path(__file__).resolve().parent.parent
DataKind = Literal["pairs", "regions", "detection", "grounding"]


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
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        ("tensorboard",), description="where figures go beside metrics.jsonl; wandb has to be installed"
    )
    workers: int | Literal["auto"] = Field(
        "auto", description="loading processes a rank; auto: cores / ranks - 1, at most 4"
    )


class DataConfig(Strict):
    """One source of training samples."""

    path: str = Field(description="shards, Parquet or a saved dataset; `scenes`: the rendered world, made if missing")
    kind: DataKind = Field("regions", description="what the shards hold; detclip and joint take one kind a step")
    batch_size: int = Field(32, ge=1, description="samples a step (of its kind) takes from it, over all ranks")
    weight: float | None = Field(
        None, ge=0, description="odds of its kind, detclip and joint; none: steps an epoch of it has (papers silent)"
    )
    image_size: int | tuple[tuple[int, int], ...] | None = Field(
        None,
        description="pixels; detclip and joint: [[short, long], ...] for multi-scale, or the side of a square canvas; "
        "none: the tower's",
    )
    flip: bool = Field(False, description="mirror images at random; detection and grounding only")
    concepts: int | None = Field(
        None, ge=1, description="names a sample with negatives; none: 150 for detection, 100 for grounding (the paper)"
    )
    dictionary: str | None = Field(
        None, description="category file with definitions, beside the categories of the sets' own cards"
    )


class VisionConfig(Strict):
    """The vision tower; with `source` its shape comes from there, all but `image_size` and `timm_args`."""

    source: str | None = Field(
        None,
        description="start from a transformers folder or hub name, an export, open_clip:ARCH:TAG_OR_FILE or "
        "timm:ARCH[:FILE]; none: from scratch",
    )
    style: Literal["clip", "siglip", "swin", "timm"] = Field(
        "clip",
        description="clip: ViT, CLS pooling; siglip: ViT, attention pooling; swin: windows, mean pooling; timm: `timm`",
    )
    image_size: int | None = Field(
        None, ge=8, description="side of the canvas in pixels, a multiple of the patches; none: the source's, else 224"
    )
    patch_size: int = Field(16, ge=2, description="pixels; swin: 4, and its last stage has patches of 4 * 2^3")
    width: int = Field(768, ge=8, description="D; swin: of stage 1, doubled with every stage")
    layers: int = Field(12, ge=1, description="blocks; swin: see depths")
    heads: int = Field(12, ge=1, description="attention heads; swin: of stage 1, doubled with every stage")
    mlp_ratio: float = Field(4.0, gt=0)
    hidden_act: str = Field("gelu", description="activation of the MLP; OpenAI's weights use quick_gelu")
    depths: tuple[int, ...] | None = Field(
        None, min_length=1, description="swin only: blocks of each stage, such as [2, 2, 6, 2]"
    )
    window: int = Field(7, ge=2, description="swin only: side of a window in patches of its stage")
    timm: str | None = Field(
        None, description="timm only: architecture, from scratch; for its weights give source=timm:NAME instead"
    )
    timm_args: dict[str, Any] = Field(
        {}, description="timm only: arguments of timm.create_model that change the shape, such as {depth: 6}"
    )
    position_init: Literal["sincos", "normal"] = Field(
        "sincos",
        description="how positions of a ViT start; the paper is silent, small runs learn faster with sincos",
    )

    @model_validator(mode="after")
    def _style_is_whole(self) -> VisionConfig:
        if self.source is not None:
            return self
        if (self.style == "swin") != (self.depths is not None):
            raise ValueError(
                "model.vision: style=swin and depths belong together; Swin-T is style=swin patch_size=4 width=96 "
                "heads=3 depths=[2,2,6,2] window=7"
            )
        if (self.style == "timm") != (self.timm is not None):
            raise ValueError("model.vision: style=timm and timm=ARCHITECTURE belong together; give both or neither")
        return self


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


class DetectorConfig(Strict):
    """Pyramid and head of the Detection wing (DetCLIPv2 4.1, ATSS)."""

    width: int = Field(256, ge=8, description="channels of pyramid and head")
    strides: tuple[int, ...] = Field((8, 16, 32, 64, 128), min_length=1, description="pixels, each twice the last")
    num_convs: int = Field(4, ge=1, description="convolutions a branch")
    anchor_scale: float = Field(8.0, gt=0, description="side of an anchor in strides")
    deformable: bool = Field(True, description="the deformable convolution that joins the branches")
    normalize: bool = Field(False, description="cosine instead of dot product as similarity; the paper is silent")
    logit_scale_init: float | None = Field(None, description="logarithm of the first scale; none: unit deviation")
    prior: float = Field(0.01, gt=0, lt=1, description="first probability of every concept at every place")
    text_context: int = Field(16, ge=4, description="tokens of a concept")
    definitions: bool = Field(True, description="concepts are read as `name, definition`")

    @model_validator(mode="after")
    def _doubling(self) -> DetectorConfig:
        if any(b != 2 * a for a, b in itertools.pairwise(self.strides)):
            raise ValueError(f"model.detector.strides: expected each twice the one before, got {list(self.strides)}")
        return self


class ModelConfig(Strict):
    """Shapes of the model."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    prompter: PrompterConfig = PrompterConfig()
    detector: DetectorConfig = DetectorConfig()
    embed_dim: int = Field(512, ge=8, description="E, width of the space shared by images, regions and texts")
    logit_scale_init: float = Field(2.6592, description="natural logarithm of the first inverse temperature")
    logit_bias_init: float = Field(-10.0, description="first bias; read by loss.form sigmoid only")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="how the towers attend")
    share_temperature: bool = Field(False, description="one temperature for the image and the region loss")


class DetectionLossConfig(Strict):
    """Weights and settings of the Detection wing's losses (DetCLIPv2 Eq. 2 to 6, Table 9)."""

    alignment: float = Field(1.0, ge=0, description="weight of the focal alignment")
    giou: float = Field(2.0, ge=0, description="weight of the box loss; detection only")
    centerness: float = Field(1.0, ge=0, description="weight of the centerness loss; detection only")
    word_region: float = Field(0.1, ge=0, description="weight of the word-region contrast; pairs only")
    nearest_when_none: bool = Field(False, description="a box without an anchor takes its nearest one")
    temperature: float = Field(0.5, gt=0, description="of the word-region contrast")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    num_proposals: int = Field(100, ge=1, description="k, regions an image keeps for its words")
    proposal_score: Literal["similarity_batch", "similarity_own", "centerness", "similarity_centerness"] = Field(
        "similarity_batch", description="what ranks an image's regions"
    )
    matching: Literal["max", "softmax", "largest_box"] = Field("max", description="how a word finds its region")
    direction: Literal["text_to_image", "image_to_text", "both"] = Field(
        "text_to_image", description="captions name few of the objects, so the other direction is left out"
    )


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
    form: Literal["softmax", "sigmoid"] = Field("softmax", description="sigmoid: SigLIP's, with a learnable bias")
    chunk: Annotated[int, Field(ge=1)] | Literal["auto", "none"] = Field(
        "auto", description="rows of the contrast in memory at a time; auto: tiles above 2,048 rows; none: all"
    )
    detection: DetectionLossConfig = DetectionLossConfig()


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
    accumulation_mode: Literal["separate", "cached"] = Field(
        "separate", description="cached: one loss over all batches of a step, exact, for a second forward pass"
    )
    activation_checkpointing: bool = Field(False, description="recompute the towers' layers: less memory, more time")
    compile: bool = Field(False, description="torch.compile for both towers")
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

    @property
    def cached(self) -> bool:
        """Whether the batches of a step share one loss, which needs more than one of them."""
        return self.accumulation_mode == "cached" and self.accumulation > 1


class ExportConfig(Strict):
    """What the finished folder says of itself."""

    licence: str = Field("unknown", description="licence of the weights, for the model card")


class Config(Strict):
    """A whole run."""

    run: RunConfig = RunConfig()
    data: tuple[DataConfig, ...] = Field(min_length=1)
    model: ModelConfig = ModelConfig()
    objective: Literal["clip", "cloc", "detclip", "joint"] = Field(
        "cloc",
        description="clip: the baseline, no Prompter made or trained; detclip: detector; joint: Prompter and detector",
    )
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _kinds_fit(self) -> Config:
        kinds = {source.kind for source in self.data}
        wrong = kinds - ({"pairs", "regions"} if not self.alternates else set(get_args(DataKind)))
        if self.objective == "detclip":
            wrong = kinds & {"regions"}
        if wrong:
            raise ValueError(
                f"data: objective {self.objective} does not train on kind {sorted(wrong)[0]!r}; "
                "clip and cloc take pairs and regions, detclip takes detection, grounding and pairs, joint takes all"
            )
        if self.train.cached and self.alternates:
            raise ValueError(
                f"train.accumulation_mode cached: objective {self.objective} takes one kind of data a batch, whose "
                "losses have no batch in common; use separate"
            )
        return self

    @property
    def alternates(self) -> bool:
        """Whether every step holds data of one kind (DetCLIPv2 3.4), instead of all sources in one batch."""
        return self.objective in ("detclip", "joint")

    @property
    def batch_size(self) -> int:
        """Samples in one batch over all ranks: of all sources, or of the largest kind where kinds alternate."""
        if not self.alternates:
            return sum(source.batch_size for source in self.data)
        kinds = Counter[str]()
        for source in self.data:
            kinds[source.kind] += source.batch_size
        return max(kinds.values())

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
    raw = read_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: expected a mapping with keys such as data and train, got {type(raw).__name__}")
    for override in overrides:
        apply_override(raw, override)
    return parse_config(raw, str(file))


def parse_config(raw: dict[str, Any], where: str = "config") -> Config:
    """A config from plain data; see `load_config` for the errors."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {_explain(raw, e)}" for e in error.errors())) from None


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
