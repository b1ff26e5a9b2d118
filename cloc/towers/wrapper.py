"""A tower in a form that more hosts take: one resolution, no CLS token, or a map, whatever the tower inside gives.

A host that holds a wrapped tower needs `import mllm_bridge` before it is loaded, since the class is ours; the stock way
is taken wherever there is one, and the report of a swap says when this one is.

Letters: B pictures, N tokens, C width, G tokens a side.
"""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cloc.towers.timm import TIMM, TimmTokens

WRAPPED = "wrapped_tower"


@strict
class WrappedTowerConfig(PreTrainedConfig):
    """A tower's config, and what hosts look for in it.

    Attributes:
        tower: config of the tower inside.
        hidden_size: C, channels of its last hidden states.
        patch_size: pixels a side for each token of its last hidden state.
        image_size: side of the square input in pixels.
        num_hidden_layers: hidden states of the last resolution, less one.
        layer_norm_eps: for hosts that norm the features with the tower's own value.
        skip: tokens before the patches, which are cut off (CLS, registers).
        leading_token: one token of zeros is put in front, for hosts that always drop token 0.
        as_map: the last hidden state is (B, C, G, G) instead of (B, N, C).
    """

    model_type = WRAPPED
    base_config_key = "vision_config"
    sub_configs_defaults = {"tower": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model")}  # noqa: RUF012

    tower: dict | PreTrainedConfig | None = None
    hidden_size: int = 768
    patch_size: int = 32
    image_size: int = 224
    num_hidden_layers: int = 12
    layer_norm_eps: float = 1e-6
    skip: int = 0
    leading_token: bool = False
    as_map: bool = False


class WrappedTower(PreTrainedModel):
    """The tower inside, its tokens cut down to the patches of the last resolution."""

    config_class = WrappedTowerConfig
    config: WrappedTowerConfig
    main_input_name = "pixel_values"
    base_model_prefix = ""
    input_modalities = ("image",)
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: WrappedTowerConfig):
        super().__init__(config)
        if config.tower.model_type == TIMM:
            self.tower = TimmTokens(config.tower)
        else:
            self.tower = AutoModel.from_config(config.tower, trust_remote_code=False)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | int | list[int] | tuple[int, ...] | None = None,
        return_dict: bool = True,
        **kwargs: object,
    ) -> BaseModelOutputWithPooling:
        """All hidden states of the last resolution, or none.

        Args:
            pixel_values: (B, 3, S, S).
            output_hidden_states: whether they are wanted; hosts also name the layers that they read (an index, or
                several), and all are given then.
            return_dict: hosts pass it; the answer is always by name.
            kwargs: what hosts tell their own towers (sizes, masks) and a tower of one size does not need.

        Returns:
            `last_hidden_state` (B, N, C), or (B, C, G, G) where the config says so, and `hidden_states` (B, N, C).
        """
        wanted = output_hidden_states is not None and output_hidden_states is not False
        outputs = self.tower(pixel_values, output_hidden_states=wanted, return_dict=True)
        last = outputs.last_hidden_state
        states = None
        if wanted:
            same = [state for state in outputs.hidden_states if state.shape == last.shape]
            states = tuple(self._patches(state) for state in same)
        last = self._patches(last)
        if self.config.as_map:
            side = self.config.image_size // self.config.patch_size
            last = last.transpose(1, 2).unflatten(2, (side, side))
        return BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=states)

    def _patches(self, state: torch.Tensor) -> torch.Tensor:
        state = state[:, self.config.skip :]
        return torch.nn.functional.pad(state, (0, 0, 1, 0)) if self.config.leading_token else state


AutoConfig.register(WRAPPED, WrappedTowerConfig)
AutoModel.register(WrappedTowerConfig, WrappedTower)
