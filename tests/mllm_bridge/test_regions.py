import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, LlavaImageProcessor

from cloc import factory
from cloc.config import parse_config
from cloc.export import write_export
from mllm_bridge.regions import RegionHost, RegionModule, add_region_token, find_box, make_region_module, map_to_canvas
from mllm_bridge.swap.command import swap

BOX = (4.0, 6.0, 30.0, 28.0)
OTHER = (10.0, 0.0, 20.0, 12.0)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    raw = {
        "run": {"name": "tiny", "device": "cpu"},
        "data": [{"path": "none"}],
        "model": {
            "embed_dim": 16,
            "vision": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "heads": 2},
            "text": {"width": 16, "layers": 1, "heads": 2, "context": 16},
        },
        "train": {"steps": 1},
    }
    config = parse_config(raw)
    tokenizer = factory.make_tokenizer(config)
    model, _ = factory.make_model(config, tokenizer)
    with torch.no_grad():
        model.vision.prompter.corner_type.normal_()
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    facts = {"objective": "cloc", "steps": 0, "samples": 0, "seed": 0, "licence": "unknown"}
    run = tmp_path_factory.mktemp("runs") / "tiny"
    run.mkdir()
    return write_export(model, state, tokenizer, run, facts, [])


@pytest.fixture(scope="module")
def with_regions(tmp_path_factory, export, host_folder):
    """A host with the export's tower and a region module with a projector of random weights."""
    folder = tmp_path_factory.mktemp("regions") / "host"
    swap(host_folder, export, folder, device="cpu")
    host, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    width = host.get_input_embeddings().weight.shape[1]
    assert add_region_token(host, processor)
    host.save_pretrained(folder)
    processor.save_pretrained(folder)
    make_region_module(export, width, rms=1.0, seed=3).save(folder)
    return folder


@pytest.fixture
def host(with_regions):
    return RegionHost.from_pretrained(with_regions)


def _picture(seed=0, size=(40, 32)):
    draw = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(draw).resize(size)


def _ask(text):
    return f"user: <image>\n{text}\nassistant: "


def test_a_region_is_the_prompters_own_vector_in_the_placeholders_place(host, export):
    """The plain twin: the export alone, the projector, and the language model, put together by hand."""
    image, inner = _picture(), host.host
    inputs = host.prepare([_ask("What is <region>?")], [[image]], [[BOX]])
    with torch.no_grad():
        found = host(**inputs).logits
        vision = AutoModel.from_pretrained(export).vision
        tokens = vision.to_prompter_tokens(vision(inputs["pixel_values"]))
        place = torch.tensor(map_to_canvas(host.processor.image_processor, [BOX], image.size)).float()[None]
        vector = host.regions.projector(vision.prompter(vision.prompter.embed_boxes(place), tokens))[0, 0]
        embeds = inner.get_input_embeddings()(inputs["input_ids"])
        features = torch.cat(list(inner.get_image_features(inputs["pixel_values"]).pooler_output))
        embeds[inputs["input_ids"] == inner.config.image_token_id] = features
        embeds[inputs["input_ids"] == host.hooks.token_id] = vector
        by_hand = inner(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-5)


def test_the_answer_depends_on_the_region_and_the_tower_runs_once(host):
    calls = []
    handle = host.host.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    image = _picture()
    with torch.no_grad():
        one = host(**host.prepare([_ask("<region>")], [[image]], [[BOX]])).logits
        assert len(calls) == 1
        two = host(**host.prepare([_ask("<region>")], [[image]], [[OTHER]])).logits
    handle.remove()
    assert (one - two).abs().max() > 1e-3


def test_fast_and_plain_agree_in_value_and_gradient_ragged_and_empty(host):
    module = host.regions
    for image_of in ([2, 0, 2, 2, 1], [1], []):
        boxes = torch.rand(len(image_of), 4).sort(dim=1).values
        grads = []
        for function in (module.forward, module.forward_plain):
            module.zero_grad()
            states = torch.randn(3, 17, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
            found = function(states, boxes, torch.tensor(image_of, dtype=torch.long))
            (found.square().sum() + 0 * states.sum()).backward()
            grads.append((found.detach(), states.grad, module.prompter.v_proj.weight.grad))
        assert grads[0][0].shape == (len(image_of), module.width)
        for fast, plain in zip(*grads, strict=True):
            expected = torch.zeros_like(fast) if plain is None else plain  # a loop over nothing has no gradient
            torch.testing.assert_close(fast, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_prompts_one_by_one_with_several_images_and_regions(host):
    a, b, c = _picture(1), _picture(2, (32, 50)), _picture(3, (24, 24))
    texts = ["user: <image> <image> is <region> like <region>?", "user: hello", _ask("<region> or <region>")]
    images = [[a, b], [], [c]]
    regions = [[BOX, {"image": 1, "point": [5, 40]}], [], [(0, 0, 24, 24), (1, 2, 9, 9)]]
    with torch.no_grad():
        together = host(**host.prepare(texts, images, regions)).logits
        for row, asked in enumerate(zip(texts, images, regions, strict=True)):
            alone = host(**host.prepare(*([one] for one in asked))).logits if asked[2] else None
            if alone is not None:
                torch.testing.assert_close(together[row, -1], alone[0, -1], rtol=0, atol=2e-5)


def test_generate_is_the_forward_pass_continued(host):
    inputs = host.prepare(
        [_ask("<region>"), _ask("And what is <region>?")], [[_picture()], [_picture(4)]], [[BOX], [OTHER]]
    )
    made = host.generate(**inputs, max_new_tokens=3, do_sample=False, min_new_tokens=3)
    first = inputs["input_ids"].shape[1]
    with torch.no_grad():
        for length in range(3):
            so_far = made[:, : first + length]
            grown = torch.cat([inputs["attention_mask"], torch.ones(2, length, dtype=torch.long)], dim=1)
            logits = host(**{**inputs, "input_ids": so_far, "attention_mask": grown}).logits[:, -1]
            logits[:, host.processor.tokenizer.eos_token_id] = -torch.inf
            assert logits.argmax(dim=-1).equal(made[:, first + length])


def test_save_and_load_again_gives_the_same_and_the_folder_stays_stock(host, with_regions, tmp_path):
    inputs = host.prepare([_ask("<region>")], [[_picture()]], [[BOX]])
    host.host.save_pretrained(tmp_path / "again")
    host.processor.save_pretrained(tmp_path / "again")
    host.regions.save(tmp_path / "again")
    with torch.no_grad():
        assert RegionHost.from_pretrained(tmp_path / "again")(**inputs).logits.equal(host(**inputs).logits)
        stock = AutoModelForImageTextToText.from_pretrained(with_regions)
        plain = {name: value for name, value in inputs.items() if not name.startswith("region")}
        assert stock(**plain).logits.isfinite().all()


def test_gradients_flow_to_prompter_and_tower(host):
    host(**host.prepare([_ask("<region>")], [[_picture()]], [[BOX]])).logits.square().mean().backward()
    last = host.host.model.vision_tower.encoder.layers[-1].mlp.fc2.weight
    for weight in (host.regions.projector[0].weight, host.regions.prompter.corner_type, last):
        assert weight.grad.abs().max() > 0  # the host reads layer -2, so the last layer is the Prompter's alone


def test_wrong_numbers_of_regions_are_refused(host):
    image = _picture()
    with pytest.raises(ValueError, match="has 1 placeholders <region>, 2 regions were given"):
        host.prepare([_ask("<region>")], [[image]], [[BOX, BOX]])
    with pytest.raises(ValueError, match="a region of image 1, the prompt has 1 images"):
        host.prepare([_ask("<region>")], [[image]], [[{"image": 1, "box": BOX}]])
    inputs = host.prepare([_ask("<region>")], [[image]], [[BOX]])
    with pytest.raises(ValueError, match="hold 2 <region> placeholders, 1 regions were given"):
        host.generate(**inputs, num_beams=2, max_new_tokens=2)
    short = {**inputs, "region_boxes": inputs["region_boxes"][:0], "region_image": inputs["region_image"][:0]}
    with pytest.raises(ValueError, match="hold 1 <region> placeholders, 0 regions were given"):
        host(**short)


def test_boxes_points_and_masks_become_boxes():
    size = (40, 30)
    assert find_box((-5, 2, 10, 50), size) == (0.0, 2.0, 10.0, 30.0)
    assert find_box({"point": (20, 15)}, size) == (15.0, 10.0, 26.0, 21.0)
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[3:9, 12:20] = 1
    assert find_box({"mask": mask}, size) == (12.0, 3.0, 20.0, 9.0)
    assert find_box({"mask": coco_mask.encode(np.asfortranarray(mask))}, size) == (12.0, 3.0, 20.0, 9.0)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ((50, 2, 60, 10), "lies outside its image of 40 x 30 pixels"),
        ((5, 5, 5, 9), "expected x1 > x0 and y1 > y0"),
        ((1, 2, 3), "expected 4 finite numbers"),
        ({"point": (40, 3)}, r"the point \(40, 3\) lies outside its image"),
        ({"mask": np.zeros((30, 40))}, "at least one pixel set"),
        ({"mask": {"size": [30, 40], "counts": "0"}}, "expected runs of 1200 pixels together, got 0"),
        ({"mask": {"size": [40, 30], "counts": "0"}}, r"expected COCO RLE with size \[30, 40\]"),
        ({"mask": np.ones((40, 30))}, r"expected a mask of 30 x 40 \(rows x columns\)"),
        ({"circle": 3}, "expected one of box, point and mask"),
    ],
)
def test_prompts_that_mean_nothing_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        find_box(prompt, (40, 30))


def test_the_canvas_is_the_processors():
    padding = LlavaImageProcessor(do_pad=True, do_center_crop=False)
    assert map_to_canvas(padding, [(0, 0, 40, 20)], (40, 20)).tolist() == [[0.0, 0.25, 1.0, 0.75]]
    stretching = LlavaImageProcessor(do_pad=False, do_center_crop=False)
    assert map_to_canvas(stretching, [(10, 5, 40, 20)], (40, 20)).tolist() == [[0.25, 0.25, 1.0, 1.0]]
    with pytest.raises(ValueError, match="crops its images"):
        map_to_canvas(LlavaImageProcessor(do_center_crop=True), [BOX], (40, 20))


def test_a_folder_without_or_with_other_weights_is_refused(with_regions, host_folder, tmp_path):
    with pytest.raises(ValueError, match="no region module"):
        RegionHost.from_pretrained(host_folder)
    module = RegionModule.load(with_regions)
    module.save(tmp_path)
    path = tmp_path / "regions" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    with pytest.raises(ValueError, match="expected schema 1, got 2"):
        RegionModule.load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": "8"}, "the numbers width and rms"),
        ({"width": 10**9}, "width to be at most"),
        ({"rms": None}, "the numbers width and rms"),
        ({"vision_config": [1]}, "the object vision_config"),
        ({"vision_config": {}}, "regions"),
        ({"vision_config": {"tower": {"num_hidden_layers": 10**7}}}, "at most 1,000"),
        ({"vision_config": {"nothing": 1}}, "regions"),
        ({"schema": 2}, "expected schema 1"),
    ],
    ids=str,
)
def test_a_tampered_region_module_is_named(with_regions, tmp_path, fields, said):
    own = shutil.copytree(with_regions / "regions", tmp_path / "regions")
    told = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(told | fields))
    with pytest.raises(ValueError, match=said):
        RegionModule.load(tmp_path)


def test_answers_are_texts_and_those_of_generate(host):
    inputs = host.prepare(
        [_ask("<region>"), _ask("And what is <region>?")], [[_picture()], [_picture(4)]], [[BOX], [OTHER]]
    )
    made = host.generate(**inputs, max_new_tokens=3, do_sample=False)
    due = host.processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    asked = ["<region>", "<image>\nAnd what is <region>?"]
    found = host.answer(asked, [[_picture()], [_picture(4)]], [[BOX], [OTHER]], max_new_tokens=3)
    assert found == [text.strip() for text in due]
    assert all(isinstance(text, str) for text in found)
