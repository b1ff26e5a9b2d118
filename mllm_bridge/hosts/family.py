"""What a description of a family of hosts has to say. One small file for each family, beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from mllm_bridge.probe import TowerFacts

FeatureLayer = int | list[int]


@dataclass(frozen=True, slots=True)
class Settings:
    """Every field of config and processor that depends on the tower, with the value it has to have."""

    config: dict[str, Any]
    processor: dict[str, Any]


class HostFamily(ABC):
    """A family of MLLMs with a vision tower, a projector and a language model.

    Attributes:
        model_type: of the host's config.
        model_class: the transformers class that generates.
        tower_prefixes, projector_prefixes: what precedes the part's keys on disk, every layout that occurs.
        tower_path: where the tower sits in memory.
        image_token: what stands for an image in a prompt, by default.
        tower_types: config types of the towers that the stock class takes as they are.
    """

    model_type: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    tower_prefixes: ClassVar[tuple[str, ...]]
    projector_prefixes: ClassVar[tuple[str, ...]]
    tower_path: ClassVar[str]
    image_token: ClassVar[str]
    tower_types: ClassVar[tuple[str, ...]]

    @abstractmethod
    def feature_layer(self, config: dict[str, Any]) -> FeatureLayer:
        """The hidden state (or several) that the host reads, by index."""

    @abstractmethod
    def projector_width(self, config: dict[str, Any]) -> int:
        """Width of the features that the host's projector takes now."""

    @abstractmethod
    def projector_input(self, facts: TowerFacts, layer: FeatureLayer) -> int:
        """Width of the features that the projector has to take for this tower."""

    @abstractmethod
    def image_tokens(self, facts: TowerFacts) -> int:
        """Placeholders for one image in the prompt."""

    @abstractmethod
    def settings(self, facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The values that config and processor must have for this tower."""

    @abstractmethod
    def image_processor(self, own: BaseImageProcessor, facts: TowerFacts) -> BaseImageProcessor:
        """The encoder's own image processor in the form that the host's processor can count with."""

    @abstractmethod
    def make_projector(self, config: PreTrainedConfig, seed: int) -> dict[str, torch.Tensor]:
        """A fresh projector for this config, by its own names, drawn from `seed` alone."""

    @abstractmethod
    def image_token_id(self, config: dict[str, Any]) -> int | None:
        """The token that stands for an image feature in the prompt."""

    @abstractmethod
    def counted(self, processor: ProcessorMixin, height: int, width: int) -> int:
        """Placeholders that the processor announces for an image of this size (pixels) without seeing it."""

    @abstractmethod
    def image_features(self, model: PreTrainedModel, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """The projected features that enter the prompt, (tokens, width of the language model) for each image."""

    @abstractmethod
    def build_tiny(
        self,
        tower_config: PreTrainedConfig,
        text_config: PreTrainedConfig,
        tokenizer: Any,
        image_processor: BaseImageProcessor,
        chat_template: str,
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """A host with random weights and its processor, for a tokenizer that has the image token as its last entry."""
