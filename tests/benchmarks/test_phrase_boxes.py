"""Boxes of phrases from a detector and from an MLLM: the fast way against the plain one, and answers read strictly."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPVisionConfig

from benchmarks.data_roots import list_roots
from benchmarks.predictors.contract import LoadedModel
from benchmarks.predictors.detector import DEFINED, ClocDetector, Found, ground_alone
from benchmarks.predictors.loaded_models import load_model
from benchmarks.predictors.mllm import CONVENTIONS
from benchmarks.provenance import Provenance
from benchmarks.runner import TaskRunner
from benchmarks.tasks.contract import Options
from benchmarks.tasks.phrase_boxes import PhraseBox, ask_boxes, describe_failures, name_protocol
from benchmarks.tasks.refcoco import RefCoco
from cloc import ClocConfig, ClocForObjectDetection, ClocProcessor, ClocVisionConfig
from cloc.models.detection_processing import make_detection_image_processor
from cloc.models.processing import image_processor
from cloc.tokenizer import clip_tokenizer

QUIET = Options(progress=False)
PLACE = Provenance("abc", {}, "machine", 0)


def export(folder, **changes):
    """A finished export of a tiny random detector."""
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=49407, bos_token_id=49406, pad_token_id=49407, max_position_embeddings=24,
    )  # fmt: skip
    vision = ClocVisionConfig(tower=tower.to_dict(), projection_dim=16)
    detector = {"width": 16, "strides": (8, 16, 32), "num_convs": 1, "anchor_scale": 4.0, "prior": 0.5, **changes}
    torch.manual_seed(0)
    config = ClocConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), objective="detclip", detector_config=detector
    )
    ClocForObjectDetection(config).eval().save_pretrained(folder)
    ClocProcessor(make_detection_image_processor(image_processor(32), 64, 96, 32), clip_tokenizer()).save_pretrained(
        folder
    )
    card = {"schema": 1, "time": "2026-01-01", "objective": "detclip", "model_sha256": "d0"}
    (folder / "export.json").write_text(json.dumps(card))
    return folder


def test_one_pass_for_all_phrases_agrees_with_one_a_phrase(tmp_path):
    detector = ClocDetector(export(tmp_path), "cpu", 2)
    noise = np.random.default_rng(0)  # unlike Pillow's, the same every time
    sizes = (30, 50, 3), (44, 30, 3)
    images = [Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)) for size in sizes]
    phrases = [["the left red ring", "a Blue_Square", "sky"], []]
    fast, plain = detector.ground(images, phrases), ground_alone(detector.detect, images, [["the left red ring",
        "a blue square", "sky"], []])  # fmt: skip
    assert [boxes.shape for boxes in fast] == [(3, 4), (0, 4)]
    np.testing.assert_allclose(fast[0], plain[0], atol=1e-4)
    assert np.isfinite(fast[0]).all()
    assert detector.ground([], []) == []


def test_an_export_tells_in_which_form_it_reads_categories(tmp_path):
    side = load_model(export(tmp_path / "export", definitions=True), "cpu", 2)
    assert side.predictors[0].form == DEFINED
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    del config["detector_config"]["definitions"]  # as older exports are: trained on bare names
    (tmp_path / "export" / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path / "export", "cpu", 2).predictors[0].form == "name"


class ColourFinder:
    """Finds the rectangle of a colour, asked for by its name alone."""

    kind, name, form = "detector", "finder", "name"

    def __init__(self, colours, blind_to=""):
        self.reader, self.blind_to = colours.Reader(), blind_to

    def detect(self, images, names, limit=300):
        (name,) = names
        if self.blind_to and self.blind_to in name:
            return [Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64)) for _ in images]
        boxes = self.reader.ground(images, [names] * len(images))
        return [Found(box, np.ones(1), np.zeros(1, dtype=np.int64)) for box in boxes]

    def ground(self, images, phrases):
        return ground_alone(self.detect, images, phrases)


class Pointer:
    """An MLLM that says where a colour is; `spoil` changes what it says."""

    kind, name, question = "mllm", "pointer", "Where is {}?"

    def __init__(self, colours, box_format=CONVENTIONS["0-1000"], spoil=lambda text: text):
        self.reader, self.box_format, self.spoil, self.asked = colours.Reader(), box_format, spoil, []

    def answer(self, images, questions):
        self.asked += questions
        phrases = [[question.removeprefix("Where is ").removesuffix("?")] for question in questions]
        boxes = self.reader.ground(images, phrases)
        return [
            self.spoil(f"It is at {self.box_format.write(box[0], image.size)}.")
            for box, image in zip(boxes, images, strict=True)
        ]


def rows(root, folder, predictor):
    session = TaskRunner(list_roots(root), [LoadedModel("m", None, [predictor])], PLACE, QUIET, folder)
    found = [result.row for result in session.run([RefCoco("refcoco")])]
    return {(row.protocol, row.metric): row for row in found if row.split == "val/all"}, session


def test_a_detector_refers_by_its_surest_box(root, colours, tmp_path):
    found, session = rows(root, tmp_path / "a", ColourFinder(colours))
    assert found["phrase-box/xyxy-pixels", "acc@0.5"].value == 1.0
    assert found["phrase-box/xyxy-pixels", "mean_iou"].value == pytest.approx(1.0)
    assert found["candidates/nearest-region", "acc@0.5"].reason == "a detector gives boxes, no region embeddings"
    examples = session.report_inputs[0].examples
    assert examples.right.all()
    assert examples.show(0).answer_xyxy == examples.show(0).truth_xyxy
    found, session = rows(root, tmp_path / "b", ColourFinder(colours, blind_to="blue"))
    row = found["phrase-box/xyxy-pixels", "acc@0.5"]
    assert row.num_examples == 72
    missed = round((1 - row.value) * 72)
    assert missed > 0
    assert row.reason == f"without a box, counted as wrong: {missed} of 72 ({missed} no_box_found)"
    examples = session.report_inputs[0].examples
    assert examples.show(int(np.argmin(examples.right))).answer == "no_box_found"


def test_an_mllms_answer_is_read_by_its_convention(root, colours, tmp_path):
    pointer = Pointer(colours)
    found, _ = rows(root, tmp_path, pointer)
    protocol = "phrase-box/xyxy-pixels/asked 'Where is {}?'/first-box-thousand-image"
    assert found[protocol, "acc@0.5"].value == 1.0
    assert found["candidates/nearest-region", "acc@0.5"].reason == "an MLLM gives words, no region embeddings"
    assert pointer.asked[0].startswith("Where is ")
    (file,) = (tmp_path / "predictions").glob("*.jsonl")
    line = json.loads(file.read_text().splitlines()[0])
    assert line["answer"].startswith("It is at [")
    assert len(line["pred_bbox_xyxy"]) == 4


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: "I cannot see it.", "no_box"),
        (lambda text: text.replace("[", "[0."), "not_whole"),
        (lambda text: "[0, 0, 1001, 5]", "out_of_range"),
    ],
)
def test_answers_that_cannot_be_read_are_wrong_and_counted(root, colours, tmp_path, spoil, reason):
    found, _ = rows(root, tmp_path, Pointer(colours, spoil=spoil))
    row = next(row for (protocol, metric), row in found.items() if "asked" in protocol and metric == "acc@0.5")
    assert row.value == 0.0
    assert row.num_examples == 72
    assert row.num_skipped == 0
    assert row.reason == f"without a box, counted as wrong: 72 of 72 (72 {reason})"


def test_the_first_box_of_an_answer_counts_and_no_phrase_asks_nothing(colours):
    image = Image.new("RGB", (100, 50))

    class Chatty(Pointer):
        def answer(self, images, questions):
            return ["a [1] thing at [0, 0, 500, 1000] or [500, 0, 1000, 1000]"] * len(questions)

    (boxes, none) = ask_boxes(Chatty(colours), [image, image], [["x"], []])
    assert boxes[0].box_xyxy.tolist() == [0, 0, 50, 50]
    assert none == []
    assert ask_boxes(Pointer(colours), [image], [[]]) == [[]]
    assert describe_failures([PhraseBox(np.zeros(4))] * 2) is None


@pytest.mark.parametrize(
    ("declared", "written", "named"),
    [("0-1", "pixels", "0-1000 or pixels"), ("pixels", "0-1000", "0-1000"), ("0-1", "0-1", None)],
)
def test_another_convention_is_named_and_never_used(declared, written, named):
    image, box = Image.new("RGB", (400, 300)), (100.0, 90.0, 390.0, 290.0)

    class Writes:
        kind, question, box_format = "mllm", "{}?", CONVENTIONS[declared]

        def answer(self, images, questions):
            return [CONVENTIONS[written].write(box, image.size)] * len(questions)

    (answers,) = ask_boxes(Writes(), [image], [["x", "y", "z"]])
    assert all(bool(answer.failure) == (named is not None) for answer in answers)
    hint = f"; read as {named}, 3 hold one: is the host's way of writing a box declared right?"
    line = f"without a box, counted as wrong: 3 of 3 (3 out_of_range){hint}"
    assert describe_failures(answers) == (None if named is None else line)


def test_the_protocol_names_what_changes_the_number(colours):
    assert name_protocol(ColourFinder(colours), "any-box") == "phrase-box/any-box/xyxy-pixels"
    assert name_protocol(Pointer(colours, CONVENTIONS["pixels"])).endswith(
        "asked 'Where is {}?'/first-box-pixels-image"
    )
