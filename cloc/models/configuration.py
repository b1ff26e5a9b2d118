"""The model's own configs: plain numbers, saved in an export's config.json."""

from __future__ import annotations

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class ClocVisionConfig(PreTrainedConfig):
    """The image side: a tower, its projection, and the Prompter.

    Attributes:
        tower: config of a transformers vision tower (`clip_vision_model`, `siglip_vision_model`).
        projection_dim: E, width of the space shared with the texts.
        has_prompter: False for a CLIP-only encoder; then neither Prompter nor box head exists.
        prompter_mlp_ratio: hidden width of the Prompter's MLP over the tower's width.
        prompter_pool: `prompt` pools over the prompt's own tokens, `all` over prompt and image tokens.
        prompter_token_positions: adds the box code of each patch's own corners to the image tokens' keys and values.
        prompter_max_cycles: highest frequency of the sinusoidal box code, in cycles over the canvas.
    """

    model_type = "cloc_vision_model"
    base_config_key = "vision_config"
    sub_configs_defaults = {"tower": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model")}  # noqa: RUF012

    tower: dict | PreTrainedConfig | None = None
    projection_dim: int = 512
    has_prompter: bool = True
    prompter_mlp_ratio: int = 4
    prompter_pool: Literal["prompt", "all"] = "prompt"
    prompter_token_positions: bool = True
    prompter_max_cycles: float | int = 16.0


@strict
class ClocConfig(PreTrainedConfig):
    """Image side, text side and temperatures.

    Attributes:
        vision_config: a `ClocVisionConfig`.
        text_config: config of a CLIP text tower.
        logit_scale_init_value: natural logarithm of the first inverse temperature (CLIP: ln 14.3).
        share_temperature: one temperature for the image-text and the region-text loss instead of two.
        objective: what the weights were trained with: `clip` or `cloc`.
    """

    model_type = "cloc"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=ClocVisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_text_model"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    logit_scale_init_value: float | int = 2.6592
    share_temperature: bool = False
    objective: str = "cloc"
