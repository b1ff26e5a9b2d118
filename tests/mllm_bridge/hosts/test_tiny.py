import ast
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import mllm_bridge
from cloc.towers.probe import SIZES, make_probe_images
from mllm_bridge.hosts import DEFAULT, FAMILIES, REFUSING
from mllm_bridge.hosts.tiny import make_tiny, make_tiny_tokenizer


def test_tokenizer_has_the_image_token_last_and_no_end_token_behind():
    tokenizer = make_tiny_tokenizer()
    ids = tokenizer("<image>Hello World").input_ids
    assert tokenizer.convert_tokens_to_ids("<image>") == len(tokenizer) - 1 == ids[1]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] != tokenizer.eos_token_id


def test_tiny_host_is_the_same_for_the_same_seed_and_touches_no_global_state(tmp_path, host_folder):
    state = torch.random.get_rng_state()
    again = make_tiny(tmp_path / "again")
    other = make_tiny(tmp_path / "other", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    first, second, third = (load_file(folder / "model.safetensors") for folder in (host_folder, again, other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(
        first["vision_tower.embeddings.class_embedding"], third["vision_tower.embeddings.class_embedding"]
    )


def test_tiny_host_speaks_by_its_chat_template(host_folder):
    processor = AutoProcessor.from_pretrained(host_folder)
    model = AutoModelForImageTextToText.from_pretrained(host_folder).eval()
    turn = {
        "role": "user",
        "content": [{"type": "image", "image": make_probe_images()["1:3"]}, {"type": "text", "text": "what?"}],
    }
    inputs = processor.apply_chat_template(
        [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16
    made = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert made.shape[1] > inputs["input_ids"].shape[1]


def test_each_turn_ends_its_line(host_folder):
    told = [{"role": role, "content": [{"type": "text", "text": "ring"}]} for role in ("user", "assistant")]
    text = AutoProcessor.from_pretrained(host_folder).apply_chat_template(told, add_generation_prompt=True)
    assert text == "user: ring\nassistant: ring\nassistant: "


def test_pictures_are_the_same_each_time_and_of_the_sizes_announced():
    assert {name: picture.size for name, picture in make_probe_images().items()} == SIZES
    assert make_probe_images()["2:1"].tobytes() == make_probe_images.__wrapped__()["2:1"].tobytes()


def test_fresh_projector_depends_on_its_seed_alone(host_folder):
    config = DEFAULT.model_class.config_class(**json.loads((host_folder / "config.json").read_text()))
    first, again, other = (DEFAULT.make_projector(config, seed) for seed in (0, 0, 1))
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        "linear_1.weight": (32, 32),
        "linear_1.bias": (32,),
        "linear_2.weight": (32, 32),
        "linear_2.bias": (32,),
    }
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["linear_1.weight"], other["linear_1.weight"])
    assert first["linear_1.bias"].abs().sum() == 0
    assert 0.015 < float(first["linear_1.weight"].std()) < 0.025


def _said(tree: ast.AST) -> set[str]:
    """Identifiers and strings of a module; prose, parts of paths (`root / "name"`), cloc's formats are left out."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    prose |= {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)}
    said = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            said.add(node.value)
        elif isinstance(node, (ast.Name, ast.alias)):
            said.add(node.id if isinstance(node, ast.Name) else node.name)
        elif isinstance(node, ast.Attribute):
            said.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("cloc."):
            said.update(node.module.split("."))
    return said


def test_no_family_is_named_outside_its_own_description():
    """Neither its type, nor its transformers classes, nor its file; `hosts/__init__` lists them and does no more."""
    package = Path(mllm_bridge.__file__).parent
    names = {
        name
        for family in FAMILIES.values()
        for name in (family.model_type, family.model_class.__name__, family.model_class.config_class.__name__)
    }
    names |= set(REFUSING)
    for path in package.rglob("*.py"):
        own = path.parent.name == "hosts" and (path.stem in {*FAMILIES, "refused", "__init__"})
        if not own:
            named = sorted(_said(ast.parse(path.read_text())) & names)
            assert not named, f"{path.relative_to(package)} names {named}"


def test_registry_goes_by_model_type():
    assert FAMILIES[DEFAULT.model_type] is DEFAULT
    assert all(name == family.model_type for name, family in FAMILIES.items())
