from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from cloc.box_text import BoxTextFormat
from cloc.data.dataloader import make_loader
from mllm_bridge.conversations.answers import IGNORED
from mllm_bridge.conversations.reading import Conversation, ImageRegion, Turn
from mllm_bridge.hosts import DEFAULT
from mllm_bridge.tune.batches import BatchMaker, LengthOrder, TuneBatches


@pytest.fixture(scope="module")
def processor(clip_folder, host_folder, tmp_path_factory):
    """A host's processor that pads its images."""
    from mllm_bridge.swap.command import swap

    out = tmp_path_factory.mktemp("padding") / "host"
    swap(host_folder, clip_folder, out, device="cpu")
    made = AutoProcessor.from_pretrained(out)
    made.tokenizer.add_tokens(["<region>"], special_tokens=True)
    return made


@pytest.fixture
def picture(tmp_path) -> Path:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def _talk(key, picture=None, question="What?", answer="A ring.", regions=()):
    images = (picture,) if picture else ()
    text = f"<image>\n{question}" if picture else question
    return Conversation(key, images, (Turn("user", text), Turn("assistant", answer)), tuple(map(ImageRegion, regions)))


def _maker(processor, region_tokens=False, max_tokens=100):
    return BatchMaker(processor, BoxTextFormat("unit", padded=True, digits=2), region_tokens, max_tokens, DEFAULT)


def _text(processor, ids):
    return processor.tokenizer.decode(ids).replace("</w>", " ").replace(" ", "")


def test_every_conversation_comes_once_an_epoch_in_batches_of_one_kind_and_length():
    lengths, pictured = [n % 17 for n in range(70)], [n % 5 > 0 for n in range(70)]
    order = LengthOrder(lengths, pictured, 4, seed=3)
    epochs = [[order.locate(e * order.num_batches + n) for n in range(order.num_batches)] for e in range(2)]
    for epoch in epochs:
        seen = Counter(number for batch in epoch for number in batch)
        assert set(seen) == set(range(70))
        assert sum(seen.values()) - 70 == 2  # 56 and 14 conversations: the second kind's last batch is filled up
        assert all(len({pictured[number] for number in batch}) == 1 for batch in epoch)
        spread = [max(lengths[n] for n in batch) - min(lengths[n] for n in batch) for batch in epoch]
        assert sum(spread) / len(spread) < 3
    assert epochs[0] != epochs[1]
    again = LengthOrder(lengths, pictured, 4, seed=3)
    assert [again.locate(n) for n in range(order.num_batches)] == epochs[0]


def test_ranks_share_a_batch_and_workers_keep_the_order(processor, picture):
    talks = [_talk(str(n), picture, answer=f"ring {n}") for n in range(8)]
    order = LengthOrder([talk.words for talk in talks], [True] * 8, 4, seed=0)
    ranks = [TuneBatches(talks, order, _maker(processor), rank, 2, 0, 3) for rank in range(2)]
    for number in range(3):
        shared = [key for rank in ranks for key in rank.batch(number).keys]
        assert sorted(shared) == sorted(str(place) for place in order.locate(number))
    direct = [batch.keys for batch in make_loader(ranks[0], 0)]
    assert [batch.keys for batch in make_loader(ranks[0], 2)] == direct


def test_places_are_text_in_answers_and_without_region_tokens_in_questions(processor, picture):
    talk = _talk("a", picture, "What is <region>?", "A ring at <region>.", [(10, 0, 20, 10), (0, 0, 40, 20)])
    batch = _maker(processor).make([talk])
    text = _text(processor, batch.inputs["input_ids"][0])
    assert "whatis[0.25,0.25,0.50,0.50]?" in text
    assert "aringat[0.00,0.25,1.00,0.75]." in text
    assert len(batch.region_boxes) == 0
    batch = _maker(processor, region_tokens=True).make([talk])
    text = _text(processor, batch.inputs["input_ids"][0])
    assert "whatis<region>?" in text
    assert "aringat[0.00,0.25,1.00,0.75]." in text
    torch.testing.assert_close(batch.region_boxes, torch.tensor([[0.25, 0.25, 0.5, 0.5]]))
    assert batch.region_image.tolist() == [0]


def test_regions_count_images_over_the_batch(processor, picture):
    one = _talk("a", picture, "<region>", "x", [(0, 0, 10, 10)])
    two = _talk("b", picture, "<region> <region>", "x", [(0, 0, 20, 10), (0, 0, 40, 20)])
    batch = _maker(processor, region_tokens=True).make([one, two])
    assert batch.region_image.tolist() == [0, 1, 1]
    assert batch.inputs["pixel_values"].shape[0] == 2


@pytest.mark.parametrize("region_tokens", [False, True])
def test_a_batch_without_image_or_usable_conversation_still_reaches_every_part(processor, region_tokens):
    maker = _maker(processor, region_tokens)
    for talks in ([_talk("text")], []):
        batch = maker.make(talks)
        assert batch.keys == tuple(talk.key for talk in talks)
        assert batch.inputs["pixel_values"].shape[0] == 1
        assert len(batch.region_boxes) == int(region_tokens)
        assert (batch.labels[len(talks) :] == IGNORED).all()
        assert (batch.answer_tokens > 0) == bool(talks)


def test_what_cannot_be_used_is_left_out_and_counted(processor, picture, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no image")
    talks = [
        _talk("good", picture),
        _talk("broken", tmp_path / "b.png"),
        _talk("long", picture, answer="word " * 200),
        _talk("outside", picture, "<region>", "x", [(50, 50, 60, 60)]),
    ]
    batch = _maker(processor).make(talks)
    assert batch.keys == ("good",)
    assert dict(batch.skipped) == {"bad_image": 1, "too_long": 1, "region_outside": 1}
    assert len(batch.labels) == 1


def test_a_batch_with_nothing_usable_is_stood_in_for_by_the_next(processor, picture):
    """At batch size 1 one region outside its image would end the run; what a number gives stays a matter of course."""
    talks = [_talk(str(n), picture) for n in range(3)]
    talks.append(_talk("outside", picture, "<region>", "x", [(50, 50, 60, 60)]))
    order = LengthOrder([0] * 4, [True] * 4, 1, seed=0)
    batches = TuneBatches(talks, order, _maker(processor), 0, 1, 0, 4)
    bad = next(number for number in range(4) if order.locate(number) == [3])
    found = [batches.batch(number) for number in range(6)]
    assert all(batch.keys for batch in found)
    assert found[bad].keys == found[bad + 1].keys
    assert [sum(batch.skipped.values()) for batch in found[:4]] == [int(number == bad) for number in range(4)]
    assert found[bad].skipped == Counter(region_outside=1)
    later = TuneBatches(talks, order, _maker(processor), 0, 1, bad, 4)  # as after a resume
    assert next(iter(later)).keys == found[bad].keys


def test_data_of_which_nothing_can_be_used_is_not_read_without_end(processor, picture):
    talks = [_talk(str(n), picture, "<region>", "x", [(50, 50, 60, 60)]) for n in range(2)]
    batch = TuneBatches(talks, LengthOrder([0, 0], [True, True], 1, seed=0), _maker(processor), 0, 1, 0, 1).batch(0)
    assert (batch.keys, batch.skipped) == ((), Counter(region_outside=1))
