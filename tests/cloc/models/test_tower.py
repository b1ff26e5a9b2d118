"""Every kind of tower keeps one contract; each is held against what its own library says."""

import pytest
import timm
import torch
from torch import nn
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Siglip2VisionConfig,
    SiglipVisionConfig,
    SwinConfig,
    TimmWrapperConfig,
)

from cloc.towers.tower import (
    check_tower,
    encode,
    feature_maps,
    feature_spec,
    image_side,
    patch_grid,
    tower_width,
)

VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [2, 2, 2, 2],
    "num_heads": [1, 2, 2, 4],
    "window_size": 2,
    "drop_path_rate": 0.0,
}
TIMM_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
TIMM_SWIN = {
    "img_size": 64,
    "embed_dim": 8,
    "depths": [2, 2, 2, 2],
    "num_heads": [1, 2, 2, 4],
    "window_size": 2,
    "strict_img_size": False,
}
TOWERS = {
    "clip": lambda: CLIPVisionConfig(**VIT),
    "siglip": lambda: SiglipVisionConfig(**VIT),
    "swin": lambda: SwinConfig(**SWIN),
    "swin_position": lambda: SwinConfig(**SWIN, use_absolute_embeddings=True),
    "timm_vit": lambda: TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=TIMM_VIT),
    "timm_siglip": lambda: TimmWrapperConfig(architecture="vit_base_patch16_siglip_224", model_args=TIMM_VIT),
    "timm_registers": lambda: TimmWrapperConfig(
        architecture="vit_base_patch14_reg4_dinov2", model_args={**TIMM_VIT, "img_size": 32}
    ),
    "timm_swin": lambda: TimmWrapperConfig(architecture="swin_tiny_patch4_window7_224", model_args=TIMM_SWIN),
}
STAGES = ((4, 8), (8, 16), (16, 32), (32, 64))


def tower_of(kind):
    torch.manual_seed(3)
    return AutoModel.from_config(TOWERS[kind]()).eval()


def picture(count, height, width, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", TOWERS)
def test_one_contract_for_all(kind):
    tower = tower_of(kind)
    config = tower.config
    check_tower(config)
    rows, columns = patch_grid(config)
    side, width = image_side(config), tower_width(config)
    tokens, pooled = encode(tower, picture(2, side, side))
    assert tokens.shape == (2, rows * columns, width)
    assert pooled.shape == (2, width)
    maps = feature_maps(tower, picture(2, side, side))
    assert [tuple(m.shape[1:]) for m in maps] == [(c, side // s, side // s) for s, c in feature_spec(config)]
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize("kind", TOWERS)
def test_maps_of_any_size(kind):
    """Other than its own size, not square, and none at all; gradients reach the pixels."""
    tower = tower_of(kind)
    stride = feature_spec(tower.config)[-1][0]
    height, width = 3 * stride, 2 * stride
    pixels = picture(2, height, width).requires_grad_()
    maps = feature_maps(tower, pixels)
    wanted = [(2, c, height // s, width // s) for s, c in feature_spec(tower.config)]
    assert [tuple(m.shape) for m in maps] == wanted
    sum(m.square().sum() for m in maps).backward()
    assert float(pixels.grad.abs().amin(dim=(0, 1)).max()) > 0
    empty = feature_maps(tower, pixels[:0])
    assert [tuple(m.shape) for m in empty] == [(0, *shape[1:]) for shape in wanted]
    sum(m.sum() for m in empty).backward()


@pytest.mark.parametrize("kind", TOWERS)
def test_a_map_lies_as_the_image_lies(kind):
    """A change of one patch moves its own cell most, row and column not swapped."""
    tower = tower_of(kind)
    stride = feature_spec(tower.config)[-1][0]
    pixels = picture(1, 2 * stride, 4 * stride)
    changed = pixels.clone()
    changed[..., stride:, 2 * stride : 3 * stride] += 3
    moved = (feature_maps(tower, changed)[-1] - feature_maps(tower, pixels)[-1]).norm(dim=1)[0]
    assert divmod(int(moved.argmax()), 4) == (1, 2)


@pytest.mark.parametrize("kind", TOWERS)
def test_an_answer_does_not_depend_on_the_images_before(kind):
    tower = tower_of(kind)
    stride = feature_spec(tower.config)[-1][0]
    large = picture(1, 6 * stride, 5 * stride)
    before = feature_maps(tower, large)
    feature_maps(tower, picture(1, stride, stride))
    assert all(torch.equal(a, b) for a, b in zip(before, feature_maps(tower, large), strict=True))


def test_swin_is_the_librarys_own_at_its_own_size():
    """The plain library forward of a fresh tower, which has seen no smaller image."""
    pixels, plain = picture(2, 64, 64), tower_of("swin")
    theirs = plain(pixels, output_hidden_states=True, output_hidden_states_before_downsampling=True)
    ours = tower_of("swin")
    assert feature_spec(ours.config) == STAGES
    for mine, their in zip(feature_maps(ours, pixels), theirs.reshaped_hidden_states[1:], strict=True):
        torch.testing.assert_close(mine, their)
    torch.testing.assert_close(encode(ours, pixels)[1], theirs.pooler_output)
    last = ours.layernorm(encode(ours, pixels)[0])
    torch.testing.assert_close(last, theirs.last_hidden_state)


def test_swin_takes_a_grid_below_its_window():
    """The library alone fails there: its position table no longer fits the shrunken window."""
    config = SwinConfig(**{**SWIN, "window_size": 4})
    tower = AutoModel.from_config(config).eval()
    assert feature_maps(tower, picture(1, 32, 64))[-1].shape == (1, 64, 1, 2)


def test_swin_under_checkpointing_has_the_same_gradients():
    """Two sizes before one backward: what is recomputed must see the windows of its own size."""
    found = []
    for checkpointing in (False, True):
        tower = tower_of("swin").train()
        if checkpointing:
            tower.gradient_checkpointing_enable({"use_reentrant": False})
        one = feature_maps(tower, picture(1, 128, 128))[-1].square().sum()
        other = feature_maps(tower, picture(1, 32, 64))[-1].square().sum()
        (one + other).backward()
        found.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 50
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_timm_swin_is_timms_own_backbone():
    tower, pixels = tower_of("timm_swin"), picture(2, 64, 96)
    plain = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **TIMM_SWIN).eval()
    plain.load_state_dict(tower.timm_model.state_dict())
    theirs = plain.forward_intermediates(pixels, intermediates_only=True)
    for mine, their in zip(feature_maps(tower, pixels), theirs, strict=True):
        torch.testing.assert_close(mine, their)
    torch.testing.assert_close(encode(tower, picture(2, 64, 64))[1], plain(picture(2, 64, 64)))


@pytest.mark.parametrize("kind", ["clip", "siglip", "timm_vit", "timm_siglip"])
def test_tokens_are_those_before_the_final_norm(kind):
    tower, pixels = tower_of(kind), picture(2, 32, 32)
    norm = tower.timm_model.norm if kind.startswith("timm") else tower.post_layernorm
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens, _ = encode(tower, pixels)
    if kind == "clip":  # it norms CLS alone
        assert seen[0].shape == (2, 32)
        return
    torch.testing.assert_close(seen[0][:, -tokens.shape[1] :], tokens)


def test_bad_towers_are_refused():
    with pytest.raises(ValueError, match=r"expected one of .*'swin'.*got 'siglip2_vision_model'; of SigLIP2 only"):
        check_tower(Siglip2VisionConfig())
    with pytest.raises(ValueError, match=r"image_size 30 is not a multiple of patch_size 8; use 24 or another patch"):
        check_tower(CLIPVisionConfig(**{**VIT, "image_size": 30}))
    with pytest.raises(ValueError, match=r"image_size 48 is not a multiple of stride 32; use 32 or another tower"):
        check_tower(SwinConfig(**{**SWIN, "image_size": 48}))
    with pytest.raises(ValueError, match=r"expected a square image_size, got \[64, 32\]"):
        check_tower(SwinConfig(**{**SWIN, "image_size": [64, 32]}))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("vit_tiny_patch16_225", {}, r"timm .* has no model 'vit_tiny_patch16_225'; the nearest are vit_tiny_patch16"),
        ("vit_tiny_patch16_224", {"layers": 2}, r"timm refuses vit_tiny_patch16_224 with .*unexpected keyword"),
        ("resnet18", {}, r"expected a timm ViT or Swin, got resnet18 \(ResNet\)"),
        ("levit_128s", {}, r"expected a timm ViT or Swin, got levit_128s|batch norm"),
        ("vit_tiny_patch16_224", {"img_size": [32, 64]}, r"expected a square image, timm's vit_tiny_patch16_224 has"),
    ],
)
def test_bad_timm_towers_are_refused(name, arguments, said):
    with pytest.raises(ValueError, match=said):
        check_tower(TimmWrapperConfig(architecture=name, model_args=arguments))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"multiples of 32, got 48 x 64; pad the images to 64 x 64"):
        feature_maps(tower_of("swin"), picture(1, 48, 64))
    fixed = {k: v for k, v in TIMM_VIT.items() if k != "dynamic_img_size"}
    tower = AutoModel.from_config(TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=fixed))
    assert feature_maps(tower, picture(1, 32, 32))[0].shape == (1, 24, 4, 4)
    with pytest.raises(ValueError, match=r"made for 32 x 32 only, got 32 x 40; make it with model_args dynamic_img_"):
        feature_maps(tower, picture(1, 32, 40))


def test_the_vits_positions_are_interpolated_to_the_image():
    """A wider image sees the same positions, stretched: the corner patches keep those of the corners."""
    tower = tower_of("clip")
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
    nn.init.zeros_(tower.embeddings.patch_embedding.weight)
    tower.pre_layrnorm = nn.Identity()
    table = tower.embeddings.position_embedding.weight[1:].reshape(4, 4, 32)
    with torch.no_grad():
        table[:] = torch.arange(4.0).view(4, 1, 1)  # a row knows its number
    found = feature_maps(tower, picture(1, 64, 32))[0][0, 0]
    assert found.shape == (8, 4)
    assert (found[1:, 0] >= found[:-1, 0]).all()
    torch.testing.assert_close(found, found[:, :1].expand(8, 4))
    torch.testing.assert_close(found.mean(), torch.tensor(1.5), atol=0.05, rtol=0)
