"""Every family with every kind of tower: it goes in, is proven by running, and lies there as the table says."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel, LlavaImageProcessor

from cloc.towers.wrapper import WRAPPED
from mllm_bridge import hosts
from mllm_bridge.encoder import load_encoder
from mllm_bridge.hosts import FAMILIES
from mllm_bridge.hosts.__main__ import STYLES, WORDS, find_form, make_page
from mllm_bridge.hosts.fitting import fit
from mllm_bridge.swap.command import swap
from mllm_bridge.swap.plan import open_host
from mllm_bridge.swap.report import SwapReport
from mllm_bridge.swap.verify import verify

REPOSITORY = Path(hosts.__file__).parents[2]
STOCK, WRAPPER, NAMED, NO = "stock", "wrapper", "converted", None
TABLE = {
    "aya_vision": (STOCK, STOCK, STOCK),
    "cohere2_vision": (WRAPPER, STOCK, STOCK),
    "fast_vlm": (WRAPPER, WRAPPER, WRAPPER),
    "gemma3": (WRAPPER, STOCK, WRAPPER),
    "idefics3": (NO, NAMED, NO),
    "internvl": (NO, NO, NO),  # DINOv2 alone, below
    "llava": (STOCK, STOCK, STOCK),
    "llava_next": (STOCK, STOCK, WRAPPER),
    "llava_onevision": (STOCK, STOCK, WRAPPER),
    "paligemma": (WRAPPER, STOCK, STOCK),
    "perception_lm": (STOCK, STOCK, STOCK),
    "smolvlm": (NO, NAMED, NO),
    "video_llava": (STOCK, STOCK, STOCK),
    "vipllava": (STOCK, WRAPPER, WRAPPER),
}
"""Family: how a ViT with CLS, a ViT without, and a Swin lie in it."""
REFUSING = {
    "mistral3": "packs images of any shape into one sequence",
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"), "is part of its tower"),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), "is part of its tower"),
}


def test_table_is_complete():
    assert set(TABLE) == set(FAMILIES)
    for name, forms in TABLE.items():
        found = [find_form(FAMILIES[name], style) for style in STYLES]
        assert [form if form in WORDS else NO for form in found] == list(forms), name


def test_the_page_of_hosts_is_not_stale():
    """Made again by `python -m mllm_bridge.hosts > docs/hosts.md`."""
    assert (REPOSITORY / "docs" / "hosts.md").read_text(encoding="utf-8") == make_page()


@pytest.mark.parametrize("style", STYLES)
def test_an_export_of_each_style_goes_in(tmp_path, tiny_hosts, spine_export, style):
    changes = {"depths": [1, 1], "heads": 2, "window": 4, "width": 8, "patch_size": 4} if style == "swin" else {}
    told = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2, "style": style, **changes}
    if style == "swin":
        del told["layers"]
    export = spine_export(model__vision=told)
    report = swap(tiny_hosts("llava"), export, tmp_path / "out", device="cpu")
    assert report.tower_after["form"] == find_form(FAMILIES["llava"], style)
    assert report.export["objective"] == "cloc"
    assert set(REFUSING) == set(hosts.REFUSING)


@pytest.fixture(scope="module")
def tiny(tiny_hosts):
    return tiny_hosts


@pytest.fixture(scope="module")
def towers(clip_folder, siglip_folder, swin_folder):
    return clip_folder, siglip_folder, swin_folder


@pytest.fixture(scope="module")
def swapped_in(tmp_path_factory, tiny, towers):
    """Puts a tower of a kind into a family's tiny host, once, and runs it; gives the report, whose folder is kept."""

    @cache
    def put(name: str, kind: int) -> SwapReport:
        out = tmp_path_factory.mktemp("swapped") / "out"
        return swap(tiny(name), towers[kind], out, full_verify=True, device="cpu")

    return put


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["cls", "plain", "swin"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_swap_verify_reload_generate(swapped_in, name, kind):
    form = TABLE[name][kind]
    if form is NO:
        with pytest.raises(ValueError, match=f"the family '{name}' does not take it: .* pass a (SigLIP|DINOv2) tower"):
            swapped_in(name, kind)
        return
    report = swapped_in(name, kind)
    assert {"tower features", "forward", "generate", "save and reload"} <= {check.name for check in report.checks}
    assert report.tower_after["form"] == form
    vision = json.loads((report.out / "config.json").read_text())["vision_config"]
    assert (vision["model_type"] == WRAPPED) == (form == WRAPPER)
    card = (report.out / "README.md").read_text()
    assert ("import mllm_bridge" in card) == (form == WRAPPER)


def _dinos(folder):
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 48, "patch_size": 8}
    dino = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2))
    registers = DINOv3ViTModel(DINOv3ViTConfig(**sizes, intermediate_size=64, num_register_tokens=4))
    for name, tower in {"dino": dino, "registers": registers}.items():
        tower.save_pretrained(folder / name)
        images = LlavaImageProcessor(do_pad=True, do_center_crop=False, size={"shortest_edge": 48})
        images.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(("tower", "form"), [("dino", STOCK), ("registers", WRAPPER)])
def test_towers_whose_names_differ_on_disk_and_in_memory(tmp_path, tiny, tower, form):
    folder = _dinos(tmp_path)
    report = swap(tiny("llava"), folder / tower, tmp_path / "out", full_verify=True, device="cpu")
    assert (report.tower_after["form"], report.tower_after["patches"]) == (form, 36)


def _alive(folder: Path) -> None:
    """Weights as after training: every vector is something, so that none can be lost or misplaced unseen."""
    file = folder / "model.safetensors"
    draw = torch.Generator().manual_seed(6)
    tensors = {key: value + 0.1 * torch.randn(value.shape, generator=draw) for key, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def test_internvl_takes_dinov2_by_name(tmp_path, tiny, edit_json):
    tower = _dinos(tmp_path) / "dino"
    _alive(tower)
    out = tmp_path / "out"
    report = swap(tiny("internvl"), tower, out, full_verify=True, device="cpu")
    assert report.tower_after["form"] == NAMED
    assert "tower features" in {check.name for check in report.checks}
    assert report.left_behind == ("embeddings.mask_token",)
    with pytest.raises(ValueError, match=r"'internvl' does not take it: .*pass a DINOv2 tower without registers"):
        swap(tiny("internvl"), tmp_path / "registers", tmp_path / "no", device="cpu")
    edit_json(out / "processor_config.json", image_seq_length=10)
    with pytest.raises(ValueError, match=r"(?s)processor image_seq_length.*placeholders"):
        verify(out, fit(load_encoder(tower, Path("runs")), FAMILIES["internvl"]))


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_families_that_take_no_tower_say_why(tmp_path, clip_folder, name):
    host = tmp_path / "host"
    host.mkdir()
    (host / "config.json").write_text(json.dumps({"model_type": name}))
    (host / "model.safetensors").write_bytes((clip_folder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=rf"family '{name}', which takes no other tower: .*{REFUSING[name]}"):
        open_host(host)


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"whose processor needs the package num2words.*pip install -e .\[smol"):
        hosts.find_family({"model_type": "smolvlm"}, "folder")
    assert hosts.find_family({"model_type": "llava"}, "folder") is FAMILIES["llava"]


def test_grid_that_cannot_be_folded_or_pooled(tmp_path, tiny, save_clip):
    odd = save_clip(tmp_path / "odd", image_size=40)
    for name, message in {
        "aya_vision": r"grid of 5 x 5 tokens does not divide by 2, .*multiple of 16 px",
        "cohere2_vision": r"grid of 5 x 5 tokens does not divide by 2",
        "gemma3": r"grid of 5 x 5 tokens cannot be pooled to the 2 x 2 .*multiple of 16 px",
        "perception_lm": r"grid of 5 x 5 tokens does not divide by the host's pooling of 2",
    }.items():
        with pytest.raises(ValueError, match=message):
            swap(tiny(name), odd, tmp_path / "out", device="cpu")


def test_host_that_reads_the_last_hidden_state_takes_no_layer(tmp_path, tiny, siglip_folder):
    with pytest.raises(ValueError, match=r"read the last hidden state and no other; leave --feature-layer out"):
        swap(tiny("paligemma"), siglip_folder, tmp_path / "out", feature_layer=-2, device="cpu")


def test_layer_of_another_resolution(tmp_path, tiny, swin_folder):
    with pytest.raises(ValueError, match=r"hidden state -3 .* another resolution than its last; choose -1 to -2"):
        swap(tiny("llava"), swin_folder, tmp_path / "out", feature_layer=-3, device="cpu")


WRONG = {
    "llava_next": (
        "config.json",
        "image_grid_pinpoints",
        [[48, 48]],
        "image processor image_grid_pinpoints: found .*cannot be packed",
    ),
    "llava_onevision": ("processor_config.json", "num_image_tokens", 36, "processor num_image_tokens.*placeholders"),
    "aya_vision": ("processor_config.json", "patch_size", 8, "processor patch_size.*placeholders"),
    "cohere2_vision": ("processor_config.json", "image_processor__patch_size", 6, "patch_size.*placeholders"),
    "gemma3": ("processor_config.json", "image_seq_length", 9, "processor image_seq_length.*placeholders"),
    "paligemma": ("processor_config.json", "image_processor__image_seq_length", 9, "image_seq_length.*placeholders"),
    "perception_lm": ("config.json", "vision_use_cls_token", False, "config vision_use_cls_token"),
    "vipllava": ("processor_config.json", "num_additional_image_tokens", 0, "num_additional_image_tokens"),
    "idefics3": ("processor_config.json", "image_seq_len", 10, "processor image_seq_len.*placeholders"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_a_family_counts_with_is_caught_when_wrong_by_one(tmp_path, swapped_in, towers, edit_json, name):
    kind = next(kind for kind, form in enumerate(TABLE[name]) if form is not NO)
    out = Path(shutil.copytree(swapped_in(name, kind).out, tmp_path / "out"))
    file, field, value, message = WRONG[name]
    edit_json(out / file, **{field: value})
    for stale in out.glob("preprocessor_config.json"):
        stale.unlink()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        verify(out, fit(load_encoder(towers[kind], Path("runs")), FAMILIES[name]))


def test_wrong_mean_of_a_host_that_cuts_tiles_is_caught(tmp_path, swapped_in, clip_folder, edit_json):
    out = Path(shutil.copytree(swapped_in("llava_next", 0).out, tmp_path / "out"))
    edit_json(out / "processor_config.json", image_processor__image_mean=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"(?s)mean: found \[0.5, 0.5, 0.5\].*values of one colour: they differ by up"):
        verify(out, load_encoder(clip_folder, Path("runs")))


def test_both_towers_of_a_host_with_two_are_exchanged(swapped_in):
    report = swapped_in("video_llava", 0)
    assert {"tower weights of image_tower", "tower weights of video_tower"} <= {check.name for check in report.checks}
    assert list(AutoProcessor.from_pretrained(report.out).video_processor.image_mean) == list(
        LlavaImageProcessor().image_mean
    )
