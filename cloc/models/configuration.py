"""The model's own configs: plain numbers, saved in an export's config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

Objectness = Literal["none", "foreground", "iou"]
"""What a class-agnostic score beside centerness tells, if there is one."""

if TYPE_CHECKING:
    SubConfig = Any
else:
    SubConfig = dict | PreTrainedConfig | None
"""A config inside a config: may come as a dict, and is a config once it is made."""


LEGACY_END = 2
"""`eos_token_id` of CLIP configs that were written before transformers' PR 24773, OpenAI's on the hub among them: no
token of theirs. transformers pools such a tower at the largest id of a text, which in CLIP's vocabulary is its end."""
CLIP_VOCABULARY = 49408


def mend_end(text_config: PreTrainedConfig) -> None:
    """Put the end token of CLIP's vocabulary instead of the legacy id; the tower gives the same answers."""
    if text_config.eos_token_id == LEGACY_END and text_config.vocab_size == CLIP_VOCABULARY:
        text_config.eos_token_id = CLIP_VOCABULARY - 1


@strict
class ClocVisionConfig(PreTrainedConfig):
    """The image side: a tower, its projection, and the Prompter.

    Attributes:
        tower: a transformers vision config: `clip_vision_model`, `siglip_vision_model`, `swin` or `timm_wrapper`.
        projection_dim: E, width of the space shared with the texts.
        has_prompter: False for a CLIP-only encoder; then neither Prompter nor box head exists.
        has_box_head: False where nothing trained a box for a phrase (`loss.grounding` 0); then there is no box head.
        prompter_kind: `attention`, or `roi_align` for the paper's ablation, which takes boxes only and has no box head.
        prompter_mlp_ratio: hidden width of the Prompter's MLP over the tower's width.
        prompter_pool: `prompt` pools over the prompt's own tokens, `all` over prompt and image tokens.
        prompter_token_positions: adds the box code of each patch's own corners to the image tokens' keys and values.
        prompter_max_cycles: highest frequency of the sinusoidal box code, in cycles over the canvas.
        prompter_prompts: kinds that the Prompter answers beside phrases: `box`, `point`, `mask`.
    """

    model_type = "cloc_vision_model"
    base_config_key = "vision_config"
    sub_configs_defaults = {"tower": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model")}  # noqa: RUF012

    tower: SubConfig = None
    projection_dim: int = 512
    has_prompter: bool = True
    has_box_head: bool = True
    prompter_kind: Literal["attention", "roi_align"] = "attention"
    prompter_mlp_ratio: int = 4
    prompter_pool: Literal["prompt", "all"] = "prompt"
    prompter_token_positions: bool = True
    prompter_max_cycles: float | int = 16.0
    prompter_prompts: list[str] | tuple[str, ...] = ("box",)


@strict
class ClocDetectorConfig(PreTrainedConfig):
    """Pyramid and head of the detector (DetCLIPv2 4.1: ATSS with a deformable module).

    Attributes:
        width: channels of the pyramid and of the head.
        strides: of the pyramid's levels, pixels of the canvas, each twice the one before.
        num_convs: convolutions of each branch of the head.
        anchor_scale: side of the one square anchor of a location, in strides of its level (ATSS: 8).
        deformable: the modulated deformable convolution at the start of the classification branch, whose offsets come
            from the regression branch.
        normalize: cosine instead of dot product as the similarity (the paper is silent; its best temperature of 0.5
            fits raw dot products).
        logit_scale_init_value: natural logarithm of the first scale of the similarity; None: such that the logits of
            a fresh model have about unit deviation.
        prior: probability that a fresh model gives to every (location, concept); sets the bias (focal loss).
        text_context: tokens of a concept; longer ones are cut (the paper: 16).
        definitions: concepts were read as `name, definition` in training, so that they are asked in this form; without
            it by the bare name.
        objectness: a class-agnostic score of every location, which proposals can be ranked by (the paper's ablation):
            `foreground`, whether the location answers for an object, `iou`, how well its box fits one, or `none`.
            Detections do not depend on it.
    """

    model_type = "cloc_detector"
    base_config_key = "detector_config"

    width: int = 256
    strides: list[int] | tuple[int, ...] = (8, 16, 32, 64, 128)
    num_convs: int = 4
    anchor_scale: float | int = 8.0
    deformable: bool = True
    normalize: bool = False
    logit_scale_init_value: float | int | None = None
    prior: float = 0.01
    text_context: int = 16
    definitions: bool = False
    objectness: Objectness = "none"


@strict
class ClocConfig(PreTrainedConfig):
    """Image side, text side and temperatures.

    Attributes:
        vision_config: a `ClocVisionConfig`.
        text_config: config of a CLIP text tower.
        logit_scale_init_value: natural logarithm of the first inverse temperature (CLIP: ln 14.3).
        logit_bias_init_value: first bias of the sigmoid form (SigLIP: -10); None: the softmax form, no bias exists.
        share_temperature: one temperature (and bias) for the image-text and the region-text loss instead of two.
        objective: what the weights were trained with: `clip`, `cloc`, `detclip` or `joint`.
        detector_config: a `ClocDetectorConfig` for `ClocForObjectDetection`; None for an encoder without detector.
    """

    model_type = "cloc"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=ClocVisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_text_model"),
    }

    vision_config: SubConfig = None
    text_config: SubConfig = None
    logit_scale_init_value: float | int = 2.6592
    logit_bias_init_value: float | int | None = None
    share_temperature: bool = False
    objective: str = "cloc"
    detector_config: SubConfig = None

    def __post_init__(self, **kwargs) -> None:
        if isinstance(self.detector_config, dict):
            self.detector_config = ClocDetectorConfig(**self.detector_config)
        super().__post_init__(**kwargs)
        mend_end(self.text_config)
