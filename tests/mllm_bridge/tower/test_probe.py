import pytest
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    LlavaImageProcessor,
    SiglipImageProcessor,
    SwinConfig,
    SwinModel,
)

from cloc.towers.probe import describe_geometry, probe


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
    with pytest.raises(ValueError, match=r"changing the patches .* should change the tokens \[1, 4, 5\] and no other"):
        probe(_Shuffled(_tower()), _padding(), "here")


def _swin(size: int = 64) -> SwinModel:
    return SwinModel(
        SwinConfig(image_size=size, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 2], window_size=4)
    ).eval()


def test_facts_of_a_tower_of_several_resolutions_are_those_of_its_last():
    facts = probe(_swin(), _padding(64), "here")
    assert (facts.kind, facts.width, facts.patch_size, facts.extra_tokens) == ("pyramid", 32, 16, 0)
    assert (facts.hidden_states, facts.usable, facts.patches) == (4, 2, 16)
    assert "2 of its hidden states have this resolution" in facts.describe()


class _Cut(_Shuffled):
    """A tower whose last hidden state has lost a few tokens."""

    def forward(self, pixel_values, **options):
        outputs = self.tower(pixel_values, **options)
        outputs.hidden_states = (*outputs.hidden_states, outputs.hidden_states[-1][:, :13])
        return outputs


def test_last_grid_that_is_no_square_is_refused():
    with pytest.raises(ValueError, match=r"to be a square grid that divides 32 px, got 13 tokens"):
        probe(_Cut(_tower()), _padding(), "here")


def test_facts_of_a_tower_with_registers():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower = DINOv3ViTModel(DINOv3ViTConfig(**sizes, image_size=32, patch_size=8, num_register_tokens=4)).eval()
    facts = probe(tower, _padding(), "here")
    assert (facts.kind, facts.extra_tokens, facts.patches) == ("registers", 5, 16)


@pytest.mark.parametrize(
    ("image_processor", "words"),
    [
        (CLIPImageProcessor(), "shortest edge resized to 224 px, cropped at the centre to 224 x 224 px"),
        (SiglipImageProcessor(size={"height": 64, "width": 64}), "resized to 64 x 64 px"),
        (_padding(), "padded to a square with colour (122, 116, 104), shortest edge resized to 32 px"),
    ],
)
def test_geometry_in_words(image_processor, words):
    assert describe_geometry(image_processor) == words
