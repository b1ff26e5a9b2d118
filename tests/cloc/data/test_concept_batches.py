"""Concept batches: boxes and concepts of each kind, mirrored and resized together; every draw a pure function."""

from collections import Counter

import numpy as np
import pytest
import torch

from cloc.data.concept_batches import ConceptBatches, ConceptRecipe, collate_concepts, measure_canvas, prepare_concepts
from cloc.data.concepts import ConceptDictionary
from cloc.data.loader import Source
from cloc.data.shards import ShardSet
from cloc.text import text_id
from cloc.tokenizer import clip_tokenizer

DICTIONARY = ConceptDictionary({"cat": "an animal that purrs", "dog": "", "emu": "a bird", "ship": "", "moon": ""})


def recipe(kind="detection", **changes):
    settings = {
        "kind": kind, "sizes": ((60, 80),), "square": False, "divisor": 32, "flip": False, "concepts": 3,
        "definitions": True, "text_context": 16,
    }  # fmt: skip
    return ConceptRecipe(**{**settings, **changes})


def prepared(sample, given, size=(60, 80), seed=0, epoch=0):
    return prepare_concepts(sample, given, size, DICTIONARY, DICTIONARY.names, seed, epoch)


def batch_of(samples, given, size=(60, 80)):
    return collate_concepts([prepared(sample, given, size) for sample in samples], clip_tokenizer(), given, size)


REGIONS = [((0, 0, 20, 15), "Cat"), ((10, 5, 40, 30), "dog"), ((0, 0, 20, 15), "emu")]


def test_detection_has_the_present_names_and_others_up_to_the_number(spine_sample):
    item = prepared(spine_sample(regions=REGIONS), recipe(concepts=4))
    assert item.labels == ((0, "cat, an animal that purrs"), (1, "dog"), (0, "emu, a bird"))
    assert item.boxes_xyxy.tolist() == [[0, 0, 20, 15], [10, 5, 40, 30]]  # equal boxes are one with two labels
    assert len(item.negatives) == 1
    assert set(item.negatives) < {"ship", "moon"}
    assert prepared(spine_sample(regions=REGIONS), recipe(concepts=2)).negatives == ()
    assert prepared(spine_sample(regions=REGIONS), recipe(definitions=False)).labels[0] == (0, "cat")


def test_grounding_takes_no_negative_that_the_caption_names(spine_sample):
    item = prepared(spine_sample(regions=REGIONS[:1], caption="A cat on a ship"), recipe("grounding", concepts=100))
    assert set(item.negatives) == {"dog", "emu, a bird", "moon"}


def test_pairs_have_the_caption_and_its_phrases_and_no_box(spine_sample):
    sample = spine_sample(regions=REGIONS, caption="A red circle and a blue star on grass")
    batch = batch_of([sample, spine_sample(key="b", caption="")], recipe("pairs"))
    assert batch.boxes_mask.sum() == 0
    assert batch.pair_image.tolist() == [0, 0, 0, 0]
    texts = ["a red circle and a blue star on grass", "red circle", "blue star", "grass"]
    assert batch.concept_text_id[batch.pair_concept].tolist() == [text_id(text) for text in texts]
    assert batch.skipped == Counter(no_caption=1)
    assert batch.caption_ids.shape[0] == 0
    joint = batch_of([sample, spine_sample(key="b", caption="")], recipe("pairs", caption_context=20))
    assert joint.caption_image.tolist() == [0]


def test_a_caption_without_noun_phrase_is_counted_and_kept(spine_sample):
    batch = batch_of([spine_sample(caption="there it is")], recipe("pairs"))
    assert batch.skipped == Counter(caption_without_noun_phrase=1)
    assert len(batch.pair_concept) == 1


def test_boxes_lie_where_their_image_lies_on_the_canvas(spine_sample):
    wide = spine_sample(regions=[((10, 5, 40, 30), "dog")])  # 40 x 30, doubled to 80 x 60
    tall = spine_sample(key="tall", size=(30, 60), regions=[((0, 30, 30, 60), "cat")])  # to 40 x 80
    batch = batch_of([wide, tall], recipe())
    assert batch.pixel_values.shape == (2, 3, 96, 96)
    torch.testing.assert_close(batch.extent, torch.tensor([[80, 60], [40, 80]]) / 96.0)
    torch.testing.assert_close(batch.boxes[:, 0], torch.tensor([[20, 10, 80, 60], [0, 40, 40, 80]]) / 96.0)
    assert (batch.pixel_values[0, :, 60:] == 0).all()
    assert (batch.pixel_values[0, :, :, 80:] == 0).all()
    assert (batch.pixel_values[1, :, 79, :39] != 0).any()


def test_a_mirrored_image_mirrors_its_boxes(spine_sample):
    sample = spine_sample(regions=[((10, 5, 40, 30), "dog")])
    plain = prepared(sample, recipe())
    seen = {}
    for epoch in range(12):
        item = prepared(sample, recipe(flip=True), epoch=epoch)
        seen[tuple(item.boxes_xyxy[0])] = item.pixel_values
    assert set(seen) == {(10, 5, 40, 30), (0, 5, 30, 30)}
    np.testing.assert_array_equal(seen[(10, 5, 40, 30)], plain.pixel_values)
    np.testing.assert_allclose(seen[(0, 5, 30, 30)], plain.pixel_values[:, :, ::-1], atol=0.05)


def test_labels_point_at_boxes_and_concepts_of_the_whole_batch(spine_sample):
    batch = batch_of([spine_sample(regions=REGIONS), spine_sample(key="b", regions=REGIONS[1:2])], recipe(concepts=1))
    assert batch.label_box.tolist() == [0, 1, 0, 2]
    named = [batch.concept_text_id[i].item() for i in batch.label_concept]
    sentences = ["cat, an animal that purrs", "dog", "emu, a bird", "dog"]
    assert named == [text_id(sentence) for sentence in sentences]
    assert len(batch.concept_ids) == len(set(sentences))


def test_a_square_canvas_has_one_size_whatever_the_images():
    given = recipe("pairs", square=True)
    assert measure_canvas([(10, 20)], given, (64, 64)) == (64, 64)
    assert measure_canvas([], given, (64, 64)) == (64, 64)
    assert measure_canvas([], recipe(), (60, 80)) == (32, 32)


def test_an_empty_batch_is_a_batch():
    batch = batch_of([], recipe())
    assert batch.pixel_values.shape == (0, 3, 32, 32)
    assert batch.boxes.shape == (0, 1, 4)
    assert len(batch.concept_ids) == 0


def test_crowds_and_boxes_beyond_the_limit_are_counted(spine_sample):
    regions = [
        {"box": [0, 0, 9, 9], "phrase": "cat", "crowd": True},
        {"box": [0, 0, 9, 9], "phrase": "dog"},
        {"box": [0, 0, 8, 9], "phrase": "dog"},
    ]
    item = prepared(spine_sample(meta={"regions": regions}), recipe(max_boxes=1))
    assert item.dropped == Counter(crowd=1, too_many_boxes=1)
    assert item.boxes_xyxy.tolist() == [[0, 0, 9, 9]]


@pytest.fixture(scope="module")
def source(spine_world):
    return Source(ShardSet.open(spine_world / "scenes" / "train"), 6)


def batches(source, rank=0, world=1, **changes):
    given = recipe("grounding", sizes=((32, 32), (48, 48)), **changes)
    return ConceptBatches([source], given, DICTIONARY, clip_tokenizer(), 3, rank, world)


def test_two_ranks_share_a_batch(source):
    whole, parts = batches(source).batch(5), [batches(source, r, 2).batch(5) for r in range(2)]
    assert whole.keys == tuple(key for pair in zip(*(part.keys for part in parts), strict=True) for key in pair)
    torch.testing.assert_close(parts[1].pixel_values, whole.pixel_values[1::2])


def test_the_size_is_drawn_for_each_batch_and_again_the_same(source):
    made = batches(source)
    sizes = [tuple(made.batch(number).pixel_values.shape[2:]) for number in range(8)]
    assert set(sizes) == {(32, 32), (64, 64)}
    assert [tuple(batches(source).batch(number).pixel_values.shape[2:]) for number in range(8)] == sizes


PHRASES = ["a red kettle", "two old men", "graffiti", "a silver carburettor", "dogs", "a whatnot"]


def test_phrases_and_negatives_meet_definitions_at_one_rate(spine_sample):
    """Phrases as GoldG has them, a dictionary whose names are all defined: a definition does not mean absence."""
    names = ["kettle", "man", "dog", *(f"thing{k}x" for k in range(60))]
    dictionary = ConceptDictionary({name: f"what {name} is" for name in names})
    given, defined, shown = recipe("grounding", concepts=20), [0, 0], [0, 0]
    for number in range(60):
        own = [PHRASES[(number + k) % len(PHRASES)] for k in range(1 + number % 5)]
        regions = [((k, 0, k + 5, 9), phrase) for k, phrase in enumerate(own)]
        item = prepare_concepts(spine_sample(key=f"k{number}", regions=regions), given, (60, 80), dictionary, (), 0, 0)
        for place, texts in enumerate(([text for _, text in item.labels], item.negatives)):
            defined[place] += sum(", what" in text for text in texts)
            shown[place] += len(texts)
        share = sum(", what" in text for _, text in item.labels) / len(item.labels)
        assert abs(sum(", what" in text for text in item.negatives) - share * len(item.negatives)) <= 1
    rates = [part / whole for part, whole in zip(defined, shown, strict=True)]
    assert 0.4 < rates[0] < 0.6
    assert abs(rates[0] - rates[1]) < 0.03
