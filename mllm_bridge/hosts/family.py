"""What a description of a family of hosts says, and what all families have in common. One small file for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from json import dumps, loads
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from cloc.towers.probe import TowerFacts
from cloc.towers.timm import TIMM

FeatureLayer = int | list[int] | None
"""Index of the hidden state that a host reads, or several; None: the tower's `last_hidden_state`."""
STOCK, WRAPPER = "stock", "wrapper"
IMAGE = "<image>"
PASSED_ON = ("do_convert_rgb", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""What a host that cuts images into tiles by its own rules takes over from the encoder's image processor."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every field that depends on the tower, with the value it has to have.

    Attributes:
        config: of the host's config.
        processor: of its processor.
        image_processor: of its image processor.
        vision: of the tower's config inside the host's, beyond what the tower itself says.
    """

    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    image_processor: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)


class HostFamily:
    """A family of MLLMs with a vision tower, a projector and a language model. A description overrides what differs.

    Attributes:
        model_type: of the host's config.
        model_class: the transformers class that generates.
        processor_class: its processor.
        cls, plain, pyramid: how it takes a ViT with a CLS token, a ViT without, and a tower of several resolutions:
            `stock`, `wrapper`, or the reason why not.
        towers: where the tower sits, in memory below `model.` and on disk with or without it; more than one, if the
            host has several made from one config.
        projector: where the projector sits.
        entry: weight of the projector that takes the features, and its dimension of their width.
        image_token: what stands for an image in a prompt, by default.
        feature_inputs: what `get_image_features` takes of the processor's output.
        own_image_processor: the encoder's own image processor goes in as it is; else the host's own class stays, cuts
            tiles by its own rules, and gets size, mean and deviation.
        reads_last: the host reads the last hidden state and no other.
        leading_token: the host drops token 0 always, so a wrapped tower has to bring one.
        wants_map: the host reads (B, C, G, G) instead of (B, N, C), which only a wrapped tower gives.
        batches: its processor puts images of several shapes into one batch.
        needs_image: its processor takes no prompt without an image.
        needs: a package that its processor asks for and this kit does not bring.
        announced_extra: tokens that the processor announces beside the placeholders, for an image and for each tile.
    """

    model_type: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    processor_class: ClassVar[type[ProcessorMixin]]
    cls: ClassVar[str] = STOCK
    plain: ClassVar[str] = STOCK
    pyramid: ClassVar[str] = WRAPPER
    towers: ClassVar[tuple[str, ...]] = ("vision_tower",)
    projector: ClassVar[str] = "multi_modal_projector"
    entry: ClassVar[tuple[str, int]] = ("linear_1.weight", 1)
    image_token: ClassVar[str] = IMAGE
    feature_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    own_image_processor: ClassVar[bool] = True
    reads_last: ClassVar[bool] = False
    leading_token: ClassVar[bool] = False
    wants_map: ClassVar[bool] = False
    batches: ClassVar[bool] = True
    needs_image: ClassVar[bool] = False
    needs: ClassVar[str | None] = None
    announced_extra: ClassVar[tuple[int, int]] = (0, 0)

    @property
    def tower_path(self) -> str:
        """Where the (first) tower sits in memory."""
        return f"model.{self.towers[0]}"

    @property
    def projector_prefixes(self) -> tuple[str, ...]:
        """What precedes the projector's keys on disk."""
        return self.prefixes(self.projector)

    def prefixes(self, part: str) -> tuple[str, ...]:
        """Every layout in which a part's keys occur on disk."""
        return (f"model.{part}.", f"{part}.")

    def takes(self, facts: TowerFacts) -> str:
        """`stock`, `wrapper`, or the reason why this tower does not go in."""
        if facts.kind == "registers" or facts.model_type == TIMM:
            return WRAPPER if self.plain in (STOCK, WRAPPER) else self.plain
        return {"cls": self.cls, "plain": self.plain, "pyramid": self.pyramid}[facts.kind]

    def convert(self, config: dict[str, Any], names: list[str]) -> tuple[dict[str, Any], dict[str, str]] | None:
        """For a host whose tower class is fixed: the tower's config and the names of its tensors under that class.

        Args:
            config: of the tower as it was found.
            names: of its tensors on disk, without prefix.

        Returns:
            The config, and for each tensor that goes in its name there; None where no such tensors fit, or where the
            host takes towers as they are.
        """
        return None

    def settings(self, config: dict[str, Any], facts: TowerFacts, layer: FeatureLayer) -> Settings:
        """The values that config and processor must have for this tower; `config` is the host's as it was."""
        return Settings()

    def image_tokens(self, config: dict[str, Any], facts: TowerFacts) -> int:
        """Placeholders for one tile: one for each patch, where the projector merges none."""
        return facts.patches

    def feature_layer(self, config: dict[str, Any]) -> FeatureLayer:
        """The hidden state (or several) that the host reads, by index."""
        if self.reads_last:
            return None
        layer = config.get("vision_feature_layer", self.default("vision_feature_layer"))
        return layer if isinstance(layer, int) else list(layer)

    def default(self, name: str) -> Any:
        """A field's value in the family's config class, for a config.json that does not name it."""
        return getattr(self.model_class.config_class(), name)

    def projector_width(self, config: dict[str, Any]) -> int:
        """Width of the features that the projector takes under this config."""
        return self.projector_shapes(config)[self.entry[0]][self.entry[1]]

    def projector_shapes(self, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Shape of each of the projector's tensors under this config."""
        return _shapes(self, dumps(config, sort_keys=True))

    def make_projector(self, config: PreTrainedConfig, seed: int) -> dict[str, torch.Tensor]:
        """A fresh projector by its own names, drawn from `seed` alone.

        Matrices are normal with the language model's own deviation, biases 0, norms as the host starts them.
        """
        model = _on_meta(self, config)
        projector = model.get_submodule(f"model.{self.projector}").to_empty(device="cpu")
        with torch.random.fork_rng(devices=[]):
            for module in projector.modules():
                model._init_weights(module)
        draw = torch.Generator().manual_seed(seed)
        deviation = getattr(config.get_text_config(), "initializer_range", 0.02)
        made = {}
        for name, value in projector.state_dict().items():
            if value.ndim > 1:
                made[name] = torch.randn(value.shape, generator=draw) * deviation
            else:
                made[name] = torch.zeros(value.shape) if name.endswith("bias") else value.detach().clone()
        return made

    def image_processor(
        self, own: BaseImageProcessor, current: BaseImageProcessor, facts: TowerFacts, settings: Settings
    ) -> BaseImageProcessor:
        """The encoder's own image processor, or the host's own with the encoder's values."""
        if self.own_image_processor:
            return type(own).from_dict({**own.to_dict(), **settings.image_processor})
        taken = {name: value for name, value in own.to_dict().items() if name in PASSED_ON}
        return type(current).from_dict({**current.to_dict(), **taken, **settings.image_processor})

    def video_fields(self, side: dict[str, int]) -> dict[str, Any]:
        """What a host's video processor has to say, beside mean and deviation; `side` is the tower's size."""
        return {"size": side}

    def image_token_id(self, config: dict[str, Any]) -> int | None:
        """The token that stands for an image feature in the prompt."""
        found = config.get("image_token_index", config.get("image_token_id"))
        return self.default("image_token_id") if found is None else found

    def placeholder_id(self, processor: ProcessorMixin) -> int | None:
        """The same token as the processor knows it."""
        return getattr(processor, "image_token_id", None)

    def tiles(self, inputs: Any, facts: TowerFacts) -> int:
        """Pictures of the tower's size in a processor's output for one image."""
        return inputs["pixel_values"].numel() // (3 * facts.image_size**2)

    def expected_tokens(self, config: dict[str, Any], facts: TowerFacts, inputs: Any, height: int, width: int) -> int:
        """Features that the host makes of one image (height x width pixels), known without running it."""
        return self.tiles(inputs, facts) * self.image_tokens(config, facts)

    def counted(self, processor: ProcessorMixin, height: int, width: int) -> int | None:
        """What the processor announces for an image of this size (pixels) unseen; None where it announces nothing."""
        if not hasattr(processor, "_get_num_multimodal_tokens"):
            return None
        counts = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return counts["num_image_tokens"][0]

    def image_features(self, model: PreTrainedModel, inputs: Any) -> list[torch.Tensor]:
        """The projected features that enter the prompt, (tokens, width of the language model), tile after tile."""
        given = {name: inputs[name] for name in self.feature_inputs if name in inputs}
        made = model.model.get_image_features(**given, return_dict=True).pooler_output
        return [rows.reshape(-1, rows.shape[-1]) for rows in made]

    def inserted(self, processor: ProcessorMixin) -> int:
        """Characters that the processor itself writes behind the last image of a prompt."""
        return 0

    def trained_on(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs of a training step; `labels` (B, L) is -100 where there is no answer."""
        return inputs


@lru_cache(maxsize=8)
def _shapes(family: HostFamily, config: str) -> dict[str, tuple[int, ...]]:
    model = _on_meta(family, family.model_class.config_class(**loads(config)))
    projector = model.get_submodule(f"model.{family.projector}")
    return {name: tuple(value.shape) for name, value in projector.state_dict().items()}


def _on_meta(family: HostFamily, config: PreTrainedConfig) -> nn.Module:
    """The whole host without a byte of weights."""
    with torch.device("meta"):
        return family.model_class(config)
