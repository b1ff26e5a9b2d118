"""LLaVA as transformers has it (`LlavaForConditionalGeneration`): one hidden state or more, a two-layer projector."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from mllm_bridge.hosts.family import FeatureLayer, HostFamily, Settings
from mllm_bridge.probe import TowerFacts


class Llava(HostFamily):
    """Reads layer -2 unless told otherwise; the strategy `default` drops token 0 whatever it is, `full` drops none."""

    model_type = "llava"
    model_class = LlavaForConditionalGeneration
    tower_prefixes = ("model.vision_tower.", "vision_tower.")
    projector_prefixes = ("model.multi_modal_projector.", "multi_modal_projector.")
    tower_path = "model.vision_tower"
    image_token = "<image>"
    tower_types = ("clip_vision_model", "siglip_vision_model")

    def feature_layer(self, config: dict[str, Any]) -> FeatureLayer:
        """Default -2, as `LlavaConfig` has it."""
        return config.get("vision_feature_layer", -2)

    def projector_width(self, config: dict[str, Any]) -> int:
        """Tower width times the number of layers read."""
        return LlavaConfig(vision_config=config.get("vision_config")).vision_config.hidden_size * _count(
            self.feature_layer(config)
        )

    def projector_input(self, facts: TowerFacts, layer: FeatureLayer) -> int:
        """Tower width times the number of layers read."""
        return facts.width * _count(layer)

    def image_tokens(self, facts: TowerFacts) -> int:
        """One for each patch: a CLS token is dropped, and nothing else."""
        return facts.patches

    def settings(self, facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The processor counts patches plus extra tokens, less one for the strategy `default`; the config agrees."""
        strategy = "default" if facts.extra_tokens else "full"
        return Settings(
            config={
                "image_seq_length": self.image_tokens(facts),
                "vision_feature_layer": layer,
                "vision_feature_select_strategy": strategy,
            },
            processor={
                "patch_size": facts.patch_size,
                "num_additional_image_tokens": facts.extra_tokens,
                "vision_feature_select_strategy": strategy,
            },
        )

    def image_processor(self, own: BaseImageProcessor, facts: TowerFacts) -> BaseImageProcessor:
        """The processor counts by `crop_size` when it sees no image, so it is set even where nothing is cropped."""
        side = {"height": facts.image_size, "width": facts.image_size}
        return type(own).from_dict({**own.to_dict(), "crop_size": side})

    def make_projector(self, config: PreTrainedConfig, seed: int) -> dict[str, torch.Tensor]:
        """Weights normal with the language model's own deviation, biases 0."""
        draw = torch.Generator().manual_seed(seed)
        deviation = getattr(config.text_config, "initializer_range", 0.02)
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in LlavaMultiModalProjector(config).state_dict().items()}
        return {
            name: torch.zeros(shape) if name.endswith("bias") else torch.randn(shape, generator=draw) * deviation
            for name, shape in shapes.items()
        }

    def image_token_id(self, config: dict[str, Any]) -> int | None:
        """Stored as `image_token_index`, in newer files also as `image_token_id`."""
        return config.get("image_token_index", config.get("image_token_id"))

    def counted(self, processor: ProcessorMixin, height: int, width: int) -> int:
        """What serving engines ask the processor for."""
        return processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]

    def image_features(self, model: PreTrainedModel, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """After tower, selection and projector."""
        return list(model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output)

    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text_config: PreTrainedConfig,
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Set as LLaVA-1.5 is: layer -2, CLS dropped."""
        patches = (tower_config.image_size // tower_config.patch_size) ** 2
        config = LlavaConfig(
            vision_config=tower_config,
            text_config=text_config,
            image_token_index=tokenizer.convert_tokens_to_ids(self.image_token),
            image_seq_length=patches,
        )
        processor = LlavaProcessor(
            image_processor,
            tokenizer,
            patch_size=tower_config.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=chat_template,
            image_token=self.image_token,
        )
        return LlavaForConditionalGeneration(config), processor


def _count(layer: FeatureLayer) -> int:
    return 1 if isinstance(layer, int) else len(layer)


LLAVA = Llava()
