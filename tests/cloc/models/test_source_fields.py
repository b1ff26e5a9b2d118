"""A field of the config that starting weights decide is applied or refused, never passed over."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SwinConfig, SwinModel

from cloc import factory

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {**SHAPE, "max_position_embeddings": 16, "vocab_size": 49408, "eos_token_id": 49407}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny Swin with dropouts of its own, and a tiny CLIP of the activation of OpenAI's."""
    root = tmp_path_factory.mktemp("theirs")
    swin = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, drop_path_rate=0.1,
        hidden_dropout_prob=0.1,
    )  # fmt: skip
    SwinModel(swin).save_pretrained(root / "swin")
    act = {"hidden_act": "quick_gelu"}
    vision = {**SHAPE, **act, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(vision_config=vision, text_config={**TEXT, **act}, projection_dim=16)).save_pretrained(
        root / "clip"
    )
    return root


def made(config):
    return factory.make_model(config, factory.make_tokenizer(config))[0]


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_drop_path_is_the_configs_in_a_loaded_swin(rate, folders, spine_config):
    vision = {"source": str(folders / "swin"), "drop_path": rate}
    tower = made(spine_config(model__vision=vision)).vision.tower
    assert (tower.config.drop_path_rate, tower.config.hidden_dropout_prob) == (rate, 0.0)
    drawn = [m.drop_prob for m in tower.modules() if type(m).__name__ == "SwinDropPath"]
    assert max(drawn, default=0.0) == pytest.approx(rate)
    torch.manual_seed(0)
    pixels = torch.randn(8, 3, 64, 64)
    first, second = (tower.train()(pixels).pooler_output for _ in range(2))
    assert torch.equal(first, second) == (rate == 0.0)


def test_drop_path_reaches_timm_and_is_refused_where_nothing_drops(folders, spine_config):
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2}
    vision = {"style": "timm", "timm": "vit_tiny_patch16_224", "timm_args": small, "image_size": 32, "drop_path": 0.2}
    assert factory.make_tower_config(spine_config(model__vision=vision)).model_args["drop_path_rate"] == 0.2
    config = spine_config(model__vision={"source": str(folders / "clip"), "drop_path": 0.2})
    with pytest.raises(ValueError, match=r"drop_path 0.2: .*clip is a clip_vision_model, which has no paths to drop"):
        factory.make_tower_config(config)
    with pytest.raises(ValueError, match=r"model.vision.drop_path 0.1: style=clip has no paths to drop"):
        spine_config(model__vision={"drop_path": 0.1})


@pytest.mark.parametrize(
    ("part", "changes", "told"),
    [
        ("vision", {"width": 24}, r"model.vision.width 24: model.vision.source .*clip has 16; leave width out"),
        ("vision", {"layers": 3}, r"model.vision.layers 3: .* has 1;"),
        ("vision", {"patch_size": 4}, r"model.vision.patch_size 4: .* has 8;"),
        ("vision", {"style": "siglip"}, r"model.vision.style 'siglip': .* has 'clip';"),
        ("vision", {"hidden_act": "relu"}, r"model.vision.hidden_act 'relu': .* has 'quick_gelu';"),
        ("vision", {"depths": (2, 2)}, r"model.vision.depths \(2, 2\): .* decides that itself;"),
        ("vision", {"timm_args": {"depth": 3}}, r"timm_args .* is a clip_vision_model, no timm tower"),
        ("text", {"heads": 4}, r"model.text.heads 4: .* has 2;"),
        ("text", {"mlp_ratio": 3.0}, r"model.text.mlp_ratio 3.0: .* has 2.0;"),
        ("text", {"hidden_act": "relu"}, r"model.text.hidden_act 'relu': .* has 'quick_gelu';"),
    ],
)
def test_a_field_that_says_otherwise_is_refused(part, changes, told, folders, spine_config):
    source = {"source": str(folders / "clip"), "context": 16} if part == "text" else {"source": str(folders / "clip")}
    config = spine_config(**{f"model__{part}": {**source, **changes}})
    with pytest.raises(ValueError, match=told):
        made(config)


def test_a_field_that_says_the_same_or_nothing_is_taken(folders, spine_config):
    same = {"source": str(folders / "clip"), "width": 16, "layers": 1, "heads": 2, "hidden_act": "quick_gelu"}
    model = made(spine_config(model__vision=same, model__text={**same, "context": 16}))
    assert model.config.text_config.hidden_act == model.config.vision_config.tower.hidden_act == "quick_gelu"


def test_a_first_temperature_that_is_asked_for_is_taken(folders, spine_config):
    text = {"source": str(folders / "clip"), "context": 16}
    theirs = CLIPModel.from_pretrained(folders / "clip").logit_scale.item()
    assert made(spine_config(model__text=text)).logit_scale.item() == pytest.approx(theirs)
    assert made(spine_config(model__text=text, model__logit_scale_init=1.5)).logit_scale.item() == 1.5


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("model__text__heads", 4, "text num_attention_heads 2 there, 4 here"),
        ("model__vision__hidden_act", "relu", "vision hidden_act 'gelu' there, 'relu' here"),
        ("model__prompter__pool", "all", "Prompter prompter_pool 'prompt' there, 'all' here"),
        ("model__prompter__max_cycles", 8.0, r"Prompter prompter_max_cycles 16.0 there, 8.0 here"),
    ],
)
def test_weights_of_another_function_are_refused(field, value, told, spine_model, tmp_path):
    spine_model().save_pretrained(tmp_path)
    spine_model(model__source=str(tmp_path))
    with pytest.raises(ValueError, match=rf"trained as another function: {told}"):
        spine_model(model__source=str(tmp_path), **{field: value})


def rates(config):
    """Each parameter's rate over the base rate, by name."""
    model = made(config)
    stepper = factory.make_stepper(config, model, None)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: g["lr_scale"] for g in stepper.optimizer.param_groups for p in g["params"]}


def test_a_new_projection_beside_a_loaded_text_tower_learns_at_the_full_rate(folders, spine_config):
    text = {"source": str(folders / "clip"), "context": 16}
    slow = {"optim__text_lr_scale": 0.1}
    kept, new = (rates(spine_config(model__text=text, model__embed_dim=e, **slow)) for e in (16, 24))
    assert kept["text_projection.weight"] == 0.1  # it came with the tower
    assert new["text_projection.weight"] == 1.0
    fresh = rates(spine_config(**slow))
    assert fresh["text_projection.weight"] == 0.1  # nothing was loaded: the config's word for the whole text side
    for found in (kept, new, fresh):
        assert {scale for name, scale in found.items() if name.startswith("text.")} == {0.1}
        assert found["vision.visual_projection.weight"] == 1.0
