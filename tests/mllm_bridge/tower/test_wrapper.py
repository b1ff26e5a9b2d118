import pytest
import torch
from transformers import AutoModel, CLIPVisionConfig, CLIPVisionModel, SwinConfig, SwinModel

from cloc.towers.wrapper import WrappedTower, WrappedTowerConfig

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def _clip(**fields) -> WrappedTower:
    inner = CLIPVisionConfig(**SIZES, image_size=32, patch_size=8)
    config = WrappedTowerConfig(tower=inner, hidden_size=16, patch_size=8, image_size=32, skip=1, **fields)
    return WrappedTower(config).eval()


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("asked", [True, 1, -2, [0, -1], (1,)])
def test_layers_may_be_asked_for_in_any_way_and_unknown_keywords_are_taken(pixels, asked):
    tower = _clip()
    outputs = tower(pixels, output_hidden_states=asked, image_sizes=[(32, 32)], interpolate_pos_encoding=False)
    plain = tower.tower(pixels, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    for found, expected in zip(outputs.hidden_states, plain.hidden_states, strict=True):
        assert torch.equal(found, expected[:, 1:])
    assert torch.equal(outputs.last_hidden_state, plain.last_hidden_state[:, 1:])


@pytest.mark.parametrize("asked", [None, False])
def test_no_hidden_states_unless_asked(pixels, asked):
    assert _clip()(pixels, output_hidden_states=asked).hidden_states is None


def test_layer_zero_is_a_layer_and_not_a_no(pixels):
    assert _clip()(pixels, output_hidden_states=0).hidden_states is not None


def test_map_and_leading_token(pixels):
    tower = _clip(as_map=True)
    flat = tower.tower(pixels).last_hidden_state[:, 1:]
    assert torch.equal(tower(pixels).last_hidden_state.flatten(2).transpose(1, 2), flat)
    leading = _clip(leading_token=True)(pixels).last_hidden_state
    assert leading.shape == (2, 17, 16)
    assert not leading[:, 0].any()


def test_swin_gives_its_last_resolution_only():
    inner = SwinConfig(image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 2], window_size=4)
    tower = WrappedTower(WrappedTowerConfig(tower=inner, hidden_size=32, patch_size=16, image_size=64)).eval()
    assert isinstance(tower.tower, SwinModel)
    outputs = tower(torch.rand(1, 3, 64, 64), output_hidden_states=True)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(1, 16, 32), (1, 16, 32)]


def test_saved_and_loaded_by_its_type(tmp_path, pixels):
    tower = _clip()
    tower.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, WrappedTower)
    assert isinstance(again.tower, CLIPVisionModel)
    assert torch.equal(again(pixels).last_hidden_state, tower(pixels).last_hidden_state)


def test_gradients_reach_the_tower_inside(pixels):
    tower = _clip()
    tower(pixels, output_hidden_states=[-1]).hidden_states[-1].sum().backward()
    assert tower.tower.embeddings.patch_embedding.weight.grad.abs().sum() > 0
