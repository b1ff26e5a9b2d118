"""Starting weights of every maker, with every key accounted for; none of these tests has a network."""

import json

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinForImageClassification,
)

from cloc import factory
from cloc.export.__main__ import convert
from cloc.images import CLIP_MEAN, CLIP_STD
from cloc.models import pretrained
from cloc.models.modeling import ClocModel
from cloc.towers import sources
from cloc.towers.adapt import fit_normalisation
from cloc.towers.timm import make_timm_config
from cloc.towers.tower import encode

SIDE = 32
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SHAPE, "image_size": SIDE, "patch_size": 8}
TEXT = {**SHAPE, "hidden_size": 16, "max_position_embeddings": 16, "vocab_size": 49408, "eos_token_id": 49407}
PIXELS = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIDE, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def made(spine_config):
    def make(**changes):
        config = spine_config(**changes)
        return factory.make_model(config, factory.make_tokenizer(config))

    return make


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever asks for a socket is told."""
    import socket

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    torch.manual_seed(7)
    model = CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=16))
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def open_clip_model():
    """A tiny open_clip model that nobody has heard of."""
    torch.manual_seed(5)
    model = open_clip.CLIP(
        TINY["embed_dim"], open_clip.CLIPVisionCfg(**TINY["vision_cfg"]), open_clip.CLIPTextCfg(**TINY["text_cfg"])
    )
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def tiny_architecture(tmp_path):
    """The name `tiny-cloc` among open_clip's architectures."""
    (tmp_path / "tiny-cloc.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-cloc.json")


@torch.no_grad()
@pytest.mark.parametrize("form", ["safetensors", "pt", "folder"])
def test_open_clip_starts_both_towers(form, made, open_clip_model, tiny_architecture, tmp_path):
    state = open_clip_model.state_dict()
    if form == "folder":
        save_file(state, tmp_path / "open_clip_model.safetensors")
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
        source = str(tmp_path)
    else:
        file = tmp_path / f"weights.{form}"
        torch.save({"state_dict": state}, file) if form == "pt" else save_file(state, file)
        source = f"open_clip:tiny-cloc:{file}"
    model, notes = made(model__vision={"source": source}, model__text={"source": source, "context": 16})
    model.eval()
    ids = open_clip.tokenize(["a red ring", "two cats"], context_length=16)
    torch.testing.assert_close(model.get_image_features(PIXELS), open_clip_model.encode_image(PIXELS, normalize=True))
    torch.testing.assert_close(model.get_text_features(ids), open_clip_model.encode_text(ids, normalize=True))
    assert float(model.logit_scale) == pytest.approx(float(open_clip_model.logit_scale))
    said = "; ".join(notes)
    vision = sum(k.startswith("visual.") for k in state)
    assert f"its keys: {vision + 2 * 4 - 1} weights loaded" in said  # query, key, value apart; the projection beside
    assert "1 logit_scale" in said
    assert "visual (not" not in said.partition("text tower")[0]


def test_open_clip_of_another_shape_names_the_keys(made, open_clip_model, tiny_architecture, tmp_path):
    state = open_clip_model.state_dict()
    state["visual.transformer.resblocks.1.mlp.c_fc.weight"] = torch.zeros(96, 32)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"1 weights do not fit.*layers\.1\.mlp\.fc1\.weight \(96, 32\) there, \(128, 3"
    ):
        made(model__vision={"source": f"open_clip:tiny-cloc:{tmp_path / 'w.safetensors'}"})
    fewer = {k: v for k, v in open_clip_model.state_dict().items() if "resblocks.1" not in k}
    save_file(fewer, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"visual\.transformer\.resblocks \(1,\) there, \(2,\) here"):
        made(model__vision={"source": f"open_clip:tiny-cloc:{tmp_path / 'w.safetensors'}"})
    del state["visual.proj"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"1 weights are missing \(first: visual_projection\.weight\)"):
        made(model__vision={"source": f"open_clip:tiny-cloc:{tmp_path / 'w.safetensors'}"})


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_pickle_that_runs_code_is_refused(made, tiny_architecture, tmp_path, capsys):
    torch.save({"state_dict": {"visual.proj": Evil()}}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"holds no plain state of tensors .*save it as safetensors"):
        made(model__vision={"source": f"open_clip:tiny-cloc:{tmp_path / 'w.pt'}"})
    assert "unpickled" not in capsys.readouterr().out


@torch.no_grad()
def test_a_timm_file_starts_a_timm_tower(made, tmp_path):
    arguments = {"depth": 2, "embed_dim": 24, "num_heads": 2}
    torch.manual_seed(2)
    plain = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, **arguments).eval()
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    source = f"timm:vit_tiny_patch16_224:{tmp_path / 'w.safetensors'}"
    model, notes = made(model__vision={"source": source, "image_size": SIDE, "timm_args": arguments})
    theirs = plain.forward_head(plain.forward_features(normalised(PIXELS, (0.5,) * 3, (0.5,) * 3)), pre_logits=True)
    torch.testing.assert_close(encode(model.eval().vision.tower, PIXELS)[1], theirs, atol=1e-5, rtol=1e-4)
    said = "; ".join(notes)
    assert "2 head (not part of this tower)" in said
    assert "normalisation with mean 0.5, 0.5, 0.5 and deviation 0.5, 0.5, 0.5 taken up by the first convolution" in said
    larger, _ = made(model__vision={"source": source, "image_size": 64, "timm_args": arguments})
    assert larger.vision.grid == (4, 4)
    with pytest.raises(ValueError, match=r"do not fit the model: .* there, .* here"):
        made(model__vision={"source": source, "image_size": SIDE})


def normalised(pixels, mean, std):
    """Pixels as another preprocessing would give them, from pixels normalised as CLIP's."""
    shape = (1, 3, 1, 1)
    raw = pixels * torch.tensor(CLIP_STD).view(shape) + torch.tensor(CLIP_MEAN).view(shape)
    return (raw - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


@torch.no_grad()
def test_another_normalisation_is_taken_up_without_loss(made, tmp_path):
    tower = SiglipVisionModel(SiglipVisionConfig(**VISION)).eval()
    tower.save_pretrained(tmp_path)
    SiglipImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path)
    model, notes = made(model__vision={"source": str(tmp_path)})
    theirs = tower(normalised(PIXELS, (0.5,) * 3, (0.5,) * 3)).pooler_output
    torch.testing.assert_close(encode(model.eval().vision.tower, PIXELS)[1], theirs, atol=1e-5, rtol=1e-4)
    assert any("taken up by the first convolution" in note for note in notes)


@torch.no_grad()
def test_without_a_bias_the_positions_take_it_up(made, tmp_path):
    plain = timm.create_model("vit_base_patch16_clip_224", img_size=SIDE, depth=1, embed_dim=24, num_heads=2).eval()
    model, _ = made(model__vision={"style": "timm", "timm": "vit_base_patch16_clip_224", "image_size": SIDE,
                                   "timm_args": {"depth": 1, "embed_dim": 24, "num_heads": 2}})  # fmt: skip
    state = {f"timm_model.{k}": v for k, v in plain.state_dict().items() if not k.startswith("head")}
    said = fit_normalisation(state, (0.5,) * 3, (0.25,) * 3)
    assert said.endswith("taken up by the first convolution and the positions")
    model.vision.tower.load_state_dict(state)
    theirs = plain.forward_head(plain.forward_features(normalised(PIXELS, (0.5,) * 3, (0.25,) * 3)), pre_logits=True)
    torch.testing.assert_close(encode(model.eval().vision.tower, PIXELS)[1], theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_both_key_layouts_of_transformers(made, clip_folder, tmp_path):
    """Before 5.6 a tower's keys carried `vision_model.`, later ones need not."""
    tower = CLIPVisionModel.from_pretrained(clip_folder).eval()
    for layout, prefix in (("old", "vision_model."), ("new", "")):
        tower.config.save_pretrained(tmp_path / layout)
        save_file(
            {f"{prefix}{k}": v for k, v in tower.state_dict().items()},
            tmp_path / layout / "model.safetensors",
            metadata={"format": "pt"},
        )
        model, notes = made(model__vision={"source": str(tmp_path / layout)})
        assert torch.equal(model.eval().vision.tower(PIXELS).pooler_output, tower(PIXELS).pooler_output)
        assert f"its keys: {len(tower.state_dict())} weights loaded, left over: none" in notes


@torch.no_grad()
def test_a_larger_image_interpolates_the_positions_and_says_so(made, clip_folder):
    model, notes = made(model__vision={"source": str(clip_folder), "image_size": 64})
    assert "positions interpolated from 4 x 4 to 8 x 8" in notes
    assert model.vision.grid == (8, 8)
    theirs = CLIPVisionModel.from_pretrained(clip_folder).embeddings.position_embedding.weight
    mine = model.vision.tower.embeddings.position_embedding.weight
    assert torch.equal(mine[0], theirs[0])  # CLS has no place
    means = mine[1:].mean(dim=0), theirs[1:].mean(dim=0)
    torch.testing.assert_close(*means, atol=0.02, rtol=0.1)
    same, notes = made(model__vision={"source": str(clip_folder), "image_size": SIDE})
    assert torch.equal(same.vision.tower.embeddings.position_embedding.weight, theirs)
    assert not any("interpolated" in note for note in notes)


def test_every_key_of_a_whole_clip_is_accounted_for(made, clip_folder):
    _, notes = made(model__vision={"source": str(clip_folder)})
    there = load_file(clip_folder / "model.safetensors")
    vision = sum(k.startswith("vision_model.") for k in there)
    text = sum(k.startswith("text_model.") for k in there)
    assert (
        f"its keys: {vision} weights loaded, left over: 1 logit_scale, {text} text_model, 1 text_projection, "
        "1 visual_projection (not part of this tower)"
    ) in notes
    assert vision + text + 3 == len(there)


def test_weights_that_do_not_fit_their_config_are_named(made, clip_folder, tmp_path):
    tower = CLIPVisionModel.from_pretrained(clip_folder)
    tower.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(
        ValueError, match=r"6 weights do not fit the model: .*mlp\.fc1\.bias \(64,\) there, \(48,\) her"
    ):
        made(model__vision={"source": str(tmp_path)})


@torch.no_grad()
def test_a_swin_classifier_starts_a_swin_tower(made, tmp_path):
    shape = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 2, "image_size": 64}
    torch.manual_seed(1)
    whole = SwinForImageClassification(SwinConfig(**shape, num_labels=5)).eval()
    whole.save_pretrained(tmp_path)
    model, notes = made(model__vision={"source": str(tmp_path)})
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(encode(model.eval().vision.tower, pixels)[1], whole.swin(pixels).pooler_output)
    assert model.vision.tower.config.drop_path_rate == 0.0  # the library's own default is 0.1
    assert any("left over: 2 classifier (not part of this tower)" in note for note in notes)


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm", "open_clip"])
def test_what_we_export_we_can_start_from(name, made, spine_export, tmp_path):
    folder = spine_export(run__seed=5)
    convert(folder, name, tmp_path / "out")
    model, _ = made(model__vision={"source": str(tmp_path / "out")})
    theirs = ClocModel.from_pretrained(folder).eval()
    ours = encode(model.eval().vision.tower, PIXELS)[1]
    torch.testing.assert_close(ours, encode(theirs.vision.tower, PIXELS)[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("open_clip:ViT-B-16", r"expected open_clip:ARCH:TAG_OR_FILE"),
        ("timm:", r"expected timm:ARCH or timm:ARCH:FILE"),
        ("timm:vit_tiny_patch16_224:./none.safetensors", r"there is no file \./none\.safetensors"),
        ("./nowhere", r"no transformers folder with a config\.json, there is no such path"),
        ("a/b/c", r"there is no such path"),
    ],
)
def test_sources_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        sources.parse_source(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("open_clip:ViT-B-17:openai", r"open_clip has no architecture 'ViT-B-17'"),
        ("open_clip:ViT-B-16:nobody", r"'nobody' is no file and no tag; tags: openai, "),
        ("open_clip:RN50:openai", r"expected a ViT, got open_clip's ResNet"),
        ("timm:vit_tiny_patch16_225", r"timm .* has no model 'vit_tiny_patch16_225'"),
    ],
)
def test_towers_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        pretrained.tower_config(text)


def test_names_are_read_without_a_network():
    """The shape of a named tower is known here; only its weights would have to come."""
    config = pretrained.tower_config("open_clip:ViT-B-16-SigLIP:webli", 256)
    assert (config.model_type, config.architecture) == ("timm_wrapper", "vit_base_patch16_siglip_224")
    assert config.model_args["img_size"] == 256
    assert pretrained.tower_config("open_clip:ViT-L-14:openai").hidden_act == "quick_gelu"
    assert pretrained.tower_config("open_clip:ViT-B-16:laion2b_s34b_b88k").hidden_act == "gelu"
    assert pretrained.text_config("open_clip:ViT-L-14:openai").hidden_size == 768
    assert pretrained.tower_config("timm:vit_base_patch16_clip_224.openai").model_args["img_size"] == 224
    with pytest.raises(ValueError, match="timm has no text towers"):
        pretrained.text_config("timm:vit_base_patch16_clip_224.openai")


@torch.no_grad()
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_nothing_is_dropped_at_random(name):
    """Timm's Swins drop a tenth of their paths by default: N ranks would not give the gradients of one."""
    swin = {"depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 2}
    small = swin if "swin" in name else {"depth": 2, "num_heads": 2}
    tower = AutoModel.from_config(make_timm_config(name, 64, {**small, "embed_dim": 24})).train()
    pixels = torch.randn(8, 3, 64, 64)
    assert torch.equal(encode(tower, pixels)[1], encode(tower, pixels)[1])
