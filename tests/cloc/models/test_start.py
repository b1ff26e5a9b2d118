import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from cloc import factory
from cloc.models import pretrained
from cloc.models.modeling import ClocModel

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE = {"image_size": 32, "patch_size": 8}
TEXT = {**VISION, "hidden_size": 16, "max_position_embeddings": 16, "vocab_size": 49408, "eos_token_id": 49407}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with weights of its own, as anybody's folder."""
    torch.manual_seed(7)
    config = CLIPConfig(vision_config={**VISION, **IMAGE}, text_config=TEXT, projection_dim=16)
    model = CLIPModel(config)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def made(spine_config):
    """A model and what it says of its starting weights."""

    def make(**changes):
        config = spine_config(**changes)
        return factory.make_model(config, factory.make_tokenizer(config))

    return make


PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[49406, 320, 2368, 49407], [49406, 320, 49407, 49407]])
ATTENTION = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@torch.no_grad()
def test_from_a_clip_it_gives_the_clips_embeddings(made, clip_folder):
    model, notes = made(model__vision={"source": clip_folder}, model__text={"source": clip_folder, "context": 16})
    theirs = CLIPModel.from_pretrained(clip_folder).eval()
    images = torch.nn.functional.normalize(theirs.get_image_features(PIXELS).pooler_output, dim=-1)
    texts = torch.nn.functional.normalize(theirs.get_text_features(IDS, ATTENTION).pooler_output, dim=-1)
    torch.testing.assert_close(model.eval().get_image_features(PIXELS), images)
    torch.testing.assert_close(model.get_text_features(IDS, ATTENTION), texts)
    assert float(model.logit_scale) == float(theirs.logit_scale)
    for name in ("vision tower", "vision.visual_projection", "text tower", "text_projection", "logit_scale"):
        assert f"{name} from {clip_folder}" in notes


@torch.no_grad()
def test_another_shared_width_makes_the_projection_anew_and_says_so(made, clip_folder):
    model, notes = made(model__vision={"source": clip_folder}, model__embed_dim=24)
    assert f"vision tower from {clip_folder}" in notes
    assert "vision.visual_projection new: (16, 32) there, (24, 32) here" in notes
    tower = CLIPVisionModel.from_pretrained(clip_folder)
    assert torch.equal(model.vision.tower(PIXELS).pooler_output, tower(PIXELS).pooler_output)


@torch.no_grad()
@pytest.mark.parametrize("kind", [CLIPVisionModel, SiglipVisionModel])
def test_a_bare_vision_tower_is_enough(kind, made, tmp_path):
    config = kind.config_class(**VISION, **IMAGE)
    tower = kind(config).eval()
    tower.save_pretrained(tmp_path)
    model, notes = made(model__vision={"source": str(tmp_path)})
    assert torch.equal(model.eval().vision.tower(PIXELS).pooler_output, tower(PIXELS).pooler_output)
    assert f"vision.visual_projection new: {tmp_path} ({config.model_type}) holds none" in notes


@torch.no_grad()
def test_an_export_of_ours_starts_both_towers(made, spine_export):
    folder = spine_export(run__seed=5)
    theirs = ClocModel.from_pretrained(folder)
    model, _ = made(model__vision={"source": str(folder)}, model__text={"source": str(folder), "context": 16})
    assert torch.equal(model.eval().get_image_features(PIXELS), theirs.get_image_features(PIXELS))
    assert torch.equal(model.get_text_features(IDS, ATTENTION), theirs.get_text_features(IDS, ATTENTION))


def test_its_plain_tower_starts_one_too(made, spine_export):
    folder = spine_export(run__seed=5)
    model, _ = made(model__vision={"source": str(folder / "clip_vision_model")})
    theirs = ClocModel.from_pretrained(folder).vision.tower.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.vision.tower.state_dict().items())


def test_wrong_kinds_are_refused(tmp_path, clip_folder):
    CLIPTextModel(CLIPTextModel.config_class(**TEXT)).save_pretrained(tmp_path / "text")
    SiglipVisionModel(SiglipVisionConfig(**VISION, **IMAGE)).save_pretrained(tmp_path / "siglip")
    with pytest.raises(ValueError, match=r"model\.vision\.source .*text: expected one of .* got 'clip_text_model'"):
        pretrained.tower_config(str(tmp_path / "text"))
    with pytest.raises(ValueError, match=r"model\.text\.source .*siglip: expected a clip_text_model"):
        pretrained.text_config(str(tmp_path / "siglip"))
    with pytest.raises(ValueError, match=r"starting weights .*nowhere: no transformers folder with a config\.json"):
        pretrained.tower_config(str(tmp_path / "nowhere"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"starting weights .*broken"):
        pretrained.tower_config(str(tmp_path / "broken"))


def test_a_folder_without_its_weights_is_refused(made, clip_folder, tmp_path):
    config = json.loads((CLIPVisionModel.from_pretrained(clip_folder).config).to_json_string())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=str(tmp_path)):
        made(model__vision={"source": str(tmp_path)})


def test_a_file_that_was_cut_is_refused(made, clip_folder, tmp_path):
    CLIPVisionModel.from_pretrained(clip_folder).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"starting weights {tmp_path}: .*header"):
        made(model__vision={"source": str(tmp_path)})


def test_a_tower_with_missing_weights_is_refused(made, clip_folder, tmp_path):
    tower = CLIPVisionModel.from_pretrained(clip_folder)
    weights = {k: v for k, v in tower.state_dict().items() if "post_layernorm" not in k}
    tower.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"2 weights of CLIPVisionModel are missing \(first: .*post_layernorm\.bias\)"):
        made(model__vision={"source": str(tmp_path)})


def test_one_seed_gives_both_objectives_one_start(made):
    cloc, clip = made()[0].state_dict(), made(objective="clip")[0].state_dict()
    assert all(torch.equal(value, cloc[name]) for name, value in clip.items())
    other = made(run__seed=1)[0].state_dict()
    assert not torch.equal(other["text_projection.weight"], cloc["text_projection.weight"])


@pytest.mark.parametrize("style", ["clip", "siglip"])
def test_sincos_positions_say_where_a_patch_lies(style, made):
    model = made(model__vision__style=style)[0]
    embeddings = model.vision.tower.embeddings
    assert embeddings.position_embedding.weight.requires_grad
    positions = embeddings.position_embedding.weight.detach()
    patches = positions[-16:]
    nearness = torch.nn.functional.normalize(patches, dim=1) @ torch.nn.functional.normalize(patches, dim=1).T
    nearness.fill_diagonal_(-1)
    rows, columns = torch.arange(16) // 4, torch.arange(16) % 4
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    assert all(distance[i, nearness[i].argmax()] == 1 for i in range(16))  # a patch is most like a neighbour
    assert len(torch.unique(patches, dim=0)) == 16
    if style == "clip":
        assert not positions[0].any()
    content = embeddings.patch_embedding(PIXELS).detach().flatten(2).std()
    assert 0.2 < float(patches.std() / content) < 2  # on the scale of what a patch shows


def test_normal_positions_are_transformers_own(made):
    model = made(model__vision__position_init="normal")[0]
    weight = model.vision.tower.embeddings.position_embedding.weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.2)


def test_a_text_tower_that_is_too_short_is_refused(made, clip_folder):
    with pytest.raises(ValueError, match=r"has 16 positions and 49408 tokens, the run asks for 32"):
        made(model__text={"source": clip_folder, "context": 32})


def test_a_whole_model_starts_from_an_export_and_says_what_is_new(spine_export, spine_model, spine_config):
    export = spine_export("first")
    changes = {"model__source": str(export), "objective": "joint", "run__seed": 5}
    config = spine_config(**changes, model__detector={"width": 16, "strides": [8, 16], "num_convs": 1})
    model, notes = factory.make_model(config, factory.make_tokenizer(config))
    weights, state = load_file(export / "model.safetensors"), model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert notes[0] == f"{len(weights)} weights from {export}"
    assert notes[1].startswith("new: ")
    assert "detector.head" in notes[1]
    with pytest.raises(ValueError, match=r"weights do not fit the model: .* there, .* here"):
        factory.make_model(spine_config(model__source=str(export), model__embed_dim=24), factory.make_tokenizer(config))
    with pytest.raises(ValueError, match=r"expected an export's folder with model\.safetensors"):
        factory.make_model(spine_config(model__source=str(export.parent)), factory.make_tokenizer(config))
