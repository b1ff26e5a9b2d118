"""The whole config of a run, and its parts that are neither shapes nor losses."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from cloc.config.loss import LossConfig
from cloc.config.model import ModelConfig
from cloc.config.strict import Strict
from cloc.phrases import ChunkerName, GenericWords

DETECTING = ("detclip", "joint")
"""Objectives that train a detector."""
MOST_STEPS = 10**8
"""Most steps of a run: thousands of times those of the papers."""
MANY = 1 << 20
"""Most samples of a batch, batches of a step and the like."""
Pixels = Annotated[int, Field(ge=8, le=16_384)]
DataKind = Literal["pairs", "regions", "detection", "grounding"]


class RunConfig(Strict):
    """Where and how the run takes place."""

    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
        max_length=100,
        description="folder under runs/; a taken name becomes NAME-2",
    )
    seed: int = Field(0, ge=0, le=10**12, description="decides initial weights, the order of samples and every draw")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast; weights and losses stay fp32")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        ("tensorboard",), description="where figures go beside metrics.jsonl; wandb and trackio have to be installed"
    )
    verify_data: bool = Field(
        False,
        description="compare every shard with the SHA-256 on its card before the run starts; reads all data once, "
        "about a minute for 60 GiB from a fast disk",
    )
    workers: Annotated[int, Field(ge=0, le=1_024)] | Literal["auto"] = Field(
        "auto", description="loading processes a rank; auto: cores / ranks - 1, at most 4"
    )


class DataConfig(Strict):
    """One source of training samples."""

    path: str = Field(
        description="shards (a folder, or a pattern with *, {000..041} and ::), Parquet or a saved dataset; `scenes`: "
        "the rendered world, made if missing"
    )
    kind: DataKind = Field("regions", description="what the shards hold; detclip and joint take one kind a step")
    batch_size: int = Field(32, ge=1, le=MANY, description="samples a step (of its kind) takes from it, over all ranks")
    weight: float | None = Field(
        None, ge=0, description="odds of its kind, detclip and joint; none: steps an epoch of it has (papers silent)"
    )
    from_step: int = Field(
        0,
        ge=0,
        description="first step that may hold its kind, detclip and joint; boxes first, captions later serves a fresh "
        "detector better (papers silent)",
    )
    image_size: Pixels | tuple[tuple[Pixels, Pixels], ...] | None = Field(
        None,
        description="pixels; detclip and joint: [[short, long], ...] for multi-scale, or the side of a square canvas; "
        "none: the tower's",
    )
    flip: bool = Field(False, description="mirror images at random; detection and grounding only")
    concepts: int | None = Field(
        None,
        ge=1,
        le=MANY,
        description="names a sample with negatives; none: 150 for detection, 100 for grounding (the paper)",
    )
    dictionary: str | None = Field(
        None, description="category file with definitions, beside the categories of the sets' own cards"
    )
    chunker: ChunkerName = Field(
        "rules", description="who finds the noun phrases of pairs: rules of ours; spacy (the paper) or nltk, as extras"
    )
    generic_words: GenericWords = Field(
        "ours",
        description="words of captions that are no part of a phrase: ours, which rendered captions need; owlv2, the 61 "
        "of CLOC's VESL, which keep logos and posters; none (DetCLIPv2 names none)",
    )
    phrases: int = Field(20, ge=1, description="noun phrases of a pair's caption, the first ones (CLOC's VESL: 20)")


class OptimConfig(Strict):
    """AdamW with linear warm-up and cosine decay (CLOC Table A)."""

    lr: float = Field(5e-4, gt=0)
    text_lr_scale: float = Field(1.0, gt=0, description="the text tower's rate over lr")
    prompter_lr_scale: float = Field(1.0, gt=0, description="the Prompter's and box head's rate over lr")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of a tower's layer over that of the next one; to keep starting weights"
    )
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    eps: float = Field(1e-6, gt=0, description="the paper is silent; CLIP's value")
    weight_decay: float = Field(0.2, ge=0)
    warmup_steps: int = Field(2000, ge=0, le=10**12)
    clip_grad_norm: float = Field(1.0, gt=0, description="the global gradient norm is cut here")


class TrainConfig(Strict):
    """How long, and what is kept."""

    steps: int | None = Field(None, ge=1, le=MOST_STEPS, description="optimiser steps; give this or samples")
    samples: int | None = Field(None, ge=1, le=10**15, description="samples to see, rounded up to whole steps")
    accumulation: int = Field(1, ge=1, le=MANY, description="batches a step; each has its own negatives")
    accumulation_mode: Literal["separate", "cached"] = Field(
        "separate", description="cached: one loss over all batches of a step, exact, for a second forward pass"
    )
    prompter_warmup_steps: int = Field(
        0, ge=0, description="steps in which the Prompter and its box head alone move; cloc with starting weights"
    )
    activation_checkpointing: bool = Field(False, description="recompute the towers' layers: less memory, more time")
    compile: bool = Field(False, description="torch.compile for both towers")
    checkpoint_every: int = Field(500, ge=1, le=10**12, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, le=MANY)
    deepspeed: str = Field(
        "auto", description="a DeepSpeed JSON; none; auto: ZeRO 1 under the deepspeed launcher, else none"
    )
    log_every: int = Field(
        20, ge=1, le=10**12, description="steps between lines on the console; metrics.jsonl has every step"
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.steps is None) == (self.samples is None):
            raise ValueError(
                "give exactly one of train.steps and train.samples; `train.steps= train.samples=N` takes the first away"
            )
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
        if self.model.prompter.kind == "roi_align" and self.objective in ("cloc", "joint") and self.loss.grounding:
            raise ValueError(
                "model.prompter.kind roi_align: RoI-Align takes no phrase prompts, so loss.grounding "
                f"{self.loss.grounding:g} has nothing to train; set loss.grounding=0"
            )
        if self.steps > MOST_STEPS:
            raise ValueError(
                f"train.samples {self.train.samples}: {self.steps:,} steps, expected at most {MOST_STEPS:,}"
            )
        self._continuation_fits()
        self._starts_fit()
        if self.alternates and self.model.detector.text_context > self.model.text.context:
            raise ValueError(
                f"model.detector.text_context {self.model.detector.text_context}: the text tower reads "
                f"model.text.context={self.model.text.context} tokens; use no more for a concept"
            )
        if self.train.cached and self.alternates:
            raise ValueError(
                f"train.accumulation_mode cached: objective {self.objective} takes one kind of data a batch, whose "
                "losses have no batch in common; use separate"
            )
        return self

    def _continuation_fits(self) -> None:
        if self.train.prompter_warmup_steps and self.objective != "cloc":
            raise ValueError(
                f"train.prompter_warmup_steps {self.train.prompter_warmup_steps}: objective {self.objective} would "
                "leave nothing or only a part to train; use objective=cloc or 0 steps"
            )
        if self.train.prompter_warmup_steps >= self.steps:
            raise ValueError(
                f"train.prompter_warmup_steps {self.train.prompter_warmup_steps}: the run has {self.steps} steps, so "
                "the towers would never move; use fewer"
            )
        if self.loss.distillation and self.alternates:
            raise ValueError(
                f"loss.distillation {self.loss.distillation:g}: objective {self.objective} has no such term; "
                "use clip or cloc, or loss.distillation=0"
            )

    def _starts_fit(self) -> None:
        late = [entry for entry in self.data if entry.from_step]
        if late and not self.alternates:
            raise ValueError(
                f"data: from_step {late[0].from_step}: objective {self.objective} takes every source in every step; "
                "leave it out, or use detclip or joint"
            )
        for entry in late:
            same = {other.from_step for other in self.data if other.kind == entry.kind}
            if len(same) > 1:
                raise ValueError(f"data: all sources of kind {entry.kind} share from_step, got {sorted(same)}")
            if entry.from_step >= self.steps:
                raise ValueError(
                    f"data: from_step {entry.from_step}: the run has {self.steps} steps, so kind {entry.kind} would "
                    "never be trained on; use an earlier step"
                )
        if len(late) == len(self.data):
            raise ValueError("data: every source has a from_step above 0; expected one kind that begins at step 0")

    @property
    def kinds(self) -> dict[str, list[int]]:
        """Rows of `data` of each kind, in the order of the config."""
        rows = dict[str, list[int]]()
        for row, entry in enumerate(self.data):
            rows.setdefault(entry.kind, []).append(row)
        return rows

    @property
    def starts(self) -> dict[str, int]:
        """First step of each kind of data."""
        return {entry.kind: entry.from_step for entry in self.data}

    @property
    def alternates(self) -> bool:
        """Whether every step holds data of one kind (DetCLIPv2 3.4), instead of all sources in one batch."""
        return self.objective in DETECTING

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
