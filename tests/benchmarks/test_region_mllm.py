"""An MLLM with region tokens is asked about real boxes through its region prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.predictors.cached_predictor import read_record, write_record
from benchmarks.predictors.loaded_models import load_model
from benchmarks.predictors.mllm import CONVENTIONS, TransformersMllm
from benchmarks.predictors.region_mllm import RegionMllm
from benchmarks.tasks.contract import Options
from benchmarks.tasks.region_recognition import NO_REGIONS, RegionRecognition
from benchmarks.tasks.regions import make_class_finder
from cloc import factory
from cloc.config import parse_config
from cloc.export import write_export
from mllm_bridge.hosts.tiny import make_tiny
from mllm_bridge.regions import RegionHost, add_region_token, make_region_module
from mllm_bridge.swap.command import swap

QUIET = Options(progress=False, photos_at_once=5)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("A fire hydrant.", 1),
        ("It is a Fire-Hydrant, not a dog", 1),
        ("fire", 0),
        ("The dogs", -1),
        ("a dog and a fire", 2),
        ("", -1),
        ("firehydrant", -1),
    ],
)
def test_the_class_that_an_answer_names_first(answer, place):
    assert make_class_finder(["fire", "fire_hydrant", "Dog"])(answer) == place


class Namer:
    """Says the colour inside a box, in words; of the first box of each image it says nothing that is a class."""

    kind, name, box_format, answers_regions = "mllm", "namer", CONVENTIONS["0-1"], True
    region_question = "What is <region>?"

    def __init__(self, colours, mute=False):
        self.colours, self.mute, self.asked = colours, mute, []

    def answer_regions(self, images, boxes_xyxy, questions):
        self.asked += questions
        reader, found = self.colours.Reader(), []
        for image, boxes in zip(images, boxes_xyxy, strict=True):
            kinds = [reader._kind(image, box, 0) for box in boxes]
            said = [f"It is a {self.colours.names[kind].replace('_', ' ')} thing." for kind in kinds]
            found.append(["no idea", *said[1:]] if self.mute else said)
        return found


def test_answers_in_words_are_scored_as_the_class_that_they_name(colours, root):
    (found,) = RegionRecognition().find([root])
    measured = RegionRecognition().run(Namer(colours), found.load(), found, QUIET)
    assert [score.tally.value() for score in measured.scores] == [1.0, 1.0]
    assert {s.protocol for s in measured.scores} == {
        f"gt-box/region-prompt/class-named-first/asked 'What is <region>?'/{kind}" for kind in ("top1", "class-mean")
    }
    assert measured.scores[0].chance == 0.25
    assert measured.scores[0].constant >= 0.25
    mute = RegionRecognition().run(Namer(colours, mute=True), found.load(), found, QUIET)
    assert mute.scores[0].tally.value() == pytest.approx(2 / 3)
    assert mute.scores[0].reason == "answers that name no class, counted as wrong: 12 of 36"
    assert mute.predictions[0] == {
        "image_id": 1, "annotation_id": 10, "category_id": mute.predictions[0]["category_id"],
        "answer": "no idea", "predicted_category_id": None,
    }  # fmt: skip
    shown = mute.examples.show(0)
    assert (shown.answer, bool(mute.examples.right[0])) == ("no idea", False)


def test_an_mllm_without_region_tokens_gets_rows_with_the_reason(root):
    (found,) = RegionRecognition().find([root])
    plain = TransformersMllm.__new__(TransformersMllm)
    measured = RegionRecognition().run(plain, found.load(), found, QUIET)
    assert [(s.tally, s.value, s.reason) for s in measured.scores] == [(None, None, NO_REGIONS)] * 2


def test_answers_about_regions_are_kept(tmp_path):
    answers = [["a dog", "éß"], [], ["x" * 300]]
    write_record(tmp_path / "a.npz", answers)
    assert read_record(tmp_path / "a.npz", "answer_regions") == answers


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A tiny host with an export's tower and a region module of random weights, as tuning leaves it."""
    work = tmp_path_factory.mktemp("tuned")
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2}
    text = {"width": 16, "layers": 1, "heads": 2, "context": 16}
    raw = {"run": {"name": "tiny", "device": "cpu"}, "data": [{"path": "none"}], "train": {"steps": 1}}
    config = parse_config({**raw, "model": {"embed_dim": 16, "vision": vision, "text": text}})
    tokenizer = factory.make_tokenizer(config)
    model, _ = factory.make_model(config, tokenizer)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    facts = {"objective": "cloc", "steps": 0, "samples": 0, "seed": 0, "licence": "unknown"}
    (work / "run").mkdir()
    export, folder = write_export(model, state, tokenizer, work / "run", facts, []), work / "host"
    swap(make_tiny(work / "tiny"), export, folder, device="cpu")
    host, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    width = host.get_input_embeddings().weight.shape[1]
    add_region_token(host, processor)
    host.save_pretrained(folder)
    processor.save_pretrained(folder)
    make_region_module(export, width, rms=1.0, seed=3).save(folder)
    return folder


def test_a_tuned_folder_is_asked_by_its_region_prompts(tuned, root, monkeypatch):
    monkeypatch.setattr("benchmarks.predictors.region_mllm.MAX_NEW_TOKENS", 3)
    side = load_model(tuned, "cpu", 2, region_question="Name {}.")
    (reading,) = side.predictors
    assert isinstance(reading, RegionMllm)
    assert "with region tokens" in side.description
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(2)]
    boxes = [np.array([[2.0, 3, 20, 25], [5, 5, 38, 28]]), np.array([[0.0, 0, 40, 30]])]
    together = reading.answer_regions(images, boxes, [reading.region_question] * 2)
    assert [len(own) for own in together] == [2, 1]
    alone = [reading.answer_regions([i], [b], [reading.region_question])[0] for i, b in zip(images, boxes, strict=True)]
    assert together == alone
    host = RegionHost.from_pretrained(tuned)
    text = reading._prompt("Name <region>.")
    inputs = host.prepare([text], [[images[0]]], [[(2.0, 3.0, 20.0, 25.0)]])
    with torch.inference_mode():
        due = host.generate(**inputs, do_sample=False, max_new_tokens=3)
    assert reading._decoded(due, inputs["input_ids"].shape[1]) == together[0][:1]
    (found,) = RegionRecognition().find([root])
    measured = RegionRecognition().run(reading, found.load(), found, Options(progress=False, limit=2))
    assert measured.scores[0].tally.num_examples == 6
