import pytest
import torch
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaImageProcessor,
    SiglipImageProcessor,
)

from mllm_bridge.probe import geometry, probe


def _tower(**changes) -> CLIPVisionModel:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(**{**sizes, "image_size": 32, "patch_size": 8, **changes})).eval()


def _padding(size: int = 32) -> LlavaImageProcessor:
    return LlavaImageProcessor(do_pad=True, do_center_crop=False, size={"shortest_edge": size})


def test_facts_of_a_clip_tower(encoder):
    facts = encoder.facts
    assert (facts.width, facts.patch_size, facts.image_size) == (48, 8, 48)
    assert (facts.extra_tokens, facts.hidden_states, facts.patches) == (1, 5, 36)
    assert facts.geometry.startswith("padded to a square with colour (122, 116, 104)")
    assert "6 x 6 = 36 tokens, a CLS token" in facts.describe()


def test_size_that_does_not_divide_by_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"here: image size 30 does not divide by patch size 8, so 6 pixels a side"):
        probe(_tower(image_size=30), _padding(30), "here")


def test_processor_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"the tower takes 32 x 32 px, its processor makes \(48, 48\)"):
        probe(_tower(), _padding(48), "here")


def test_processor_that_keeps_the_ratio_is_refused():
    keeps = CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    with pytest.raises(ValueError, match=r"makes \(32, 64\) of the 2:1 picture"):
        probe(_tower(), keeps, "here")


def test_config_with_the_wrong_patch_size_is_caught_by_the_forward():
    tower = _tower()
    tower.config.patch_size = 16
    with pytest.raises(ValueError, match=r"expected 4 patch tokens with or without one CLS token, got 17"):
        probe(tower, _padding(), "here")


class _Shuffled(nn.Module):
    """A tower whose patch tokens are in reverse order."""

    def __init__(self, tower):
        super().__init__()
        self.tower, self.config = tower, tower.config

    def forward(self, pixel_values, **options):
        outputs = self.tower(pixel_values, **options)
        outputs.hidden_states = tuple(state.flip(1) for state in outputs.hidden_states)
        return outputs


def test_tokens_in_another_order_are_caught():
    with pytest.raises(ValueError, match=r"changing the patch in row \d, column \d should change token"):
        probe(_Shuffled(_tower()), _padding(), "here")


class _Stages(nn.Module):
    """A tower with several resolutions, as Swin has."""

    def __init__(self):
        super().__init__()
        self.config, self.weight = _tower().config, nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values, **options):
        states = tuple(self.weight * torch.ones(1, 16 // 4**stage, 8 * 2**stage) for stage in range(2))
        return type("Outputs", (), {"hidden_states": states})()


def test_hidden_states_of_several_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected hidden states of one shape .* got \[\(1, 4, 16\), \(1, 16, 8\)\]"):
        probe(_Stages(), _padding(), "here")


@pytest.mark.parametrize(
    ("image_processor", "words"),
    [
        (CLIPImageProcessor(), "shortest edge resized to 224 px, cropped at the centre to 224 x 224 px"),
        (SiglipImageProcessor(size={"height": 64, "width": 64}), "resized to 64 x 64 px"),
        (_padding(), "padded to a square with colour (122, 116, 104), shortest edge resized to 32 px"),
    ],
)
def test_geometry_in_words(image_processor, words):
    assert geometry(image_processor) == words
