"""What an image's labels tell of a name: there, absent, or unknown; from converter to batch."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cloc.convert.coco import convert_coco
from cloc.convert.lvis import convert_lvis
from cloc.data.concept_batches import ConceptBatches, ConceptRecipe, collate_concepts, prepare_concepts
from cloc.data.concepts import ConceptDictionary, Entry, merge_cards
from cloc.data.known import Vocabulary
from cloc.data.loader import Source
from cloc.data.shards import ShardSet
from cloc.losses.unknowns import find_unknowns
from cloc.text import text_id
from cloc.tokenizer import clip_tokenizer


def recipe(kind="detection", **changes):
    settings = {
        "kind": kind, "sizes": ((64, 64),), "square": False, "divisor": 32, "flip": False, "concepts": 80,
        "definitions": False, "text_context": 16,
    }  # fmt: skip
    return ConceptRecipe(**{**settings, **changes})


def card(*names, **more):
    listed = [{"id": k, **({"name": name} if isinstance(name, str) else name)} for k, name in enumerate(names, 1)]
    return {"categories": listed, **more}


def prepared(sample, told, kind="detection", dictionary=None, **changes):
    known = dictionary or merge_cards([told])
    return prepare_concepts(sample, recipe(kind, **changes), (64, 64), known, Vocabulary.of_card(told), 0, 0)


def unknown_names(items, row, at=(0.5, 0.5), kind="detection"):
    """Concepts of the batch that are unknown at a place of one image, as its loss sees it."""
    given = recipe(kind)
    batch = collate_concepts(items, clip_tokenizer(), given, (64, 64))
    ids = batch.concept_text_id.unique()
    rows = torch.searchsorted(ids, batch.concept_text_id)
    anchors = torch.tensor([[at[0] - 0.05, at[1] - 0.05, at[0] + 0.05, at[1] + 0.05]], dtype=torch.float64)
    found = find_unknowns(batch, rows, len(ids), anchors)
    texts = {text for item in items for text in [name for _, name in item.labels] + list(item.negatives)}
    return {text for text in texts if found.entries[found.group[row], int(torch.searchsorted(ids, text_id(text)))]}


def test_a_federated_image_knows_its_negatives_alone(spine_sample):
    told = card("dog", "boat", "person", "shoe", federated=True)
    one = spine_sample(
        regions=[((0, 0, 9, 9), "dog")], meta={"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
    )
    other = spine_sample(key="b", regions=[((0, 0, 9, 9), "person"), ((9, 9, 19, 19), "boat")])
    items = [prepared(one, told), prepared(other, told)]
    assert [item.negatives for item in items] == [("boat",), ()]
    # The dog's list is not finished: open but where its box is. `person` came in through the other image.
    assert unknown_names(items, 0) == {"dog", "person"}
    assert unknown_names(items, 1) == {"dog"}


def test_lists_of_ids_make_a_sample_federated_whatever_its_card_says(spine_sample):
    sample = spine_sample(regions=[((0, 0, 9, 9), "dog")], meta={"neg_category_ids": [2]})
    assert prepared(sample, card("dog", "boat", "shoe")).negatives == ("boat",)
    names_alone = prepare_concepts(sample, recipe(), (64, 64), merge_cards([None]), ("dog", "boat", "shoe"), 0, 0)
    assert names_alone.negatives == ()
    odd = spine_sample(regions=[((0, 0, 9, 9), "dog")], meta={"neg_category_ids": {"a": 1}, "crowds": [{"box": "x"}]})
    assert prepared(odd, card("dog", "boat")).negatives == ()


@pytest.mark.parametrize("where", ["regions", "crowds"])
def test_a_crowd_is_unknown_inside_its_box_and_absent_elsewhere(spine_sample, where):
    crowd, dog = {"box": [20, 0, 40, 30], "phrase": "person"}, {"box": [0, 0, 9, 9], "phrase": "dog"}
    meta = {"regions": [dog], "crowds": [crowd]}
    if where == "regions":
        meta = {"regions": [dog, {**crowd, "crowd": True}]}
    item = prepared(spine_sample(meta=meta), card("person", "dog", "ship"))
    assert item.negatives == ("ship",)
    other = prepared(spine_sample(key="b", regions=[((0, 0, 9, 9), "person")]), card("person", "dog", "ship"))
    assert unknown_names([item, other], 0, at=(0.75, 0.3)) == {"person"}
    assert unknown_names([item, other], 0, at=(0.25, 0.3)) == set()
    assert unknown_names([item, other], 1) == set()
    flipped = [prepared(spine_sample(meta=meta), card("person", "dog", "ship"), flip=True, concepts=k) for k in (3, 4)]
    for one in flipped:
        ((_, box),) = one.knowledge.partly
        assert box == ((20, 0, 40, 30) if one.boxes_xyxy[0, 0] == 0 else (0, 0, 20, 30))


def test_boxes_beyond_the_limit_are_not_taught_as_absent(spine_sample):
    sample = spine_sample(regions=[((0, 0, 9, 9), "dog"), ((20, 0, 40, 30), "cat")])
    item = prepared(sample, card("dog", "cat", "ship"), max_boxes=1)
    assert item.negatives == ("ship",)
    assert [box for _, box in item.knowledge.partly] == [(20, 0, 40, 30)]


def test_a_root_category_above_its_children_is_unknown(spine_sample):
    told = card("fish", {"name": "shark", "supercategory": "fish"}, {"name": "ray", "supercategory": "fish"}, "boat")
    shark, fish = (spine_sample(key=name, regions=[((0, 0, 9, 9), name)]) for name in ("shark", "fish"))
    items = [prepared(shark, told), prepared(fish, told)]
    assert [item.negatives for item in items] == [("ray", "boat"), ("boat",)]
    assert unknown_names(items, 0) == {"fish"}
    assert unknown_names(items, 1) == {"shark", "ray"}
    flat = card({"name": "person", "supercategory": "person"}, {"name": "hot dog", "supercategory": "food"}, "dog")
    item = prepared(spine_sample(regions=[((0, 0, 9, 9), "hot dog")]), flat)
    assert item.negatives == ("person", "dog")  # a list of categories says itself what lies in what
    assert item.knowledge.unknown == frozenset()


DICTIONARY = ConceptDictionary(
    [
        Entry("dog", "an animal that barks"),
        Entry("puppy", "a young dog", parents=("dog",)),
        Entry("animal"),
        Entry("sofa", synonyms=("couch", "lounge")),
        Entry("step_ladder"),
        Entry("hat"),
        Entry("boat"),
    ]
)


@pytest.mark.parametrize(
    ("caption", "absent"),
    [
        ("wearing a hat. Two kids; a dog, near a step-ladder", {"animal", "sofa", "boat"}),
        ("Hats and BOATS", {"dog", "puppy", "animal", "sofa", "step ladder"}),
        ("a puppy on a couch", {"animal", "hat", "boat", "step ladder"}),  # a puppy is a dog
        ("", {"dog", "puppy", "animal", "sofa", "hat", "boat", "step ladder"}),
    ],
)
def test_grounding_draws_nothing_that_the_caption_names_in_any_words(spine_sample, caption, absent):
    item = prepared(spine_sample(caption=caption), None, "grounding", DICTIONARY)
    assert set(item.negatives) == absent


def test_the_other_captions_of_a_photo_name_things_too(spine_sample):
    sample = spine_sample(caption="a boat", meta={"captions": ["a boat", "two hats"]})
    assert not {"boat", "hat"} & set(prepared(sample, None, "grounding", DICTIONARY).negatives)


def test_phrases_of_other_images_are_absent_but_for_what_the_caption_means_too(spine_sample):
    one = spine_sample(regions=[((0, 0, 9, 9), "a brown puppy")], caption="A brown puppy beside a couch.")
    phrases = ["dog", "small brown puppy", "black dog", "sofa", "boat", "couches", "the brown puppy"]
    other = spine_sample(key="b", regions=[((k, 0, k + 9, 9), phrase) for k, phrase in enumerate(phrases)])
    given = [prepared(sample, None, "grounding", DICTIONARY, concepts=1) for sample in (one, other)]
    expected = {"dog", "small brown puppy", "sofa", "couches", "the brown puppy"}
    assert unknown_names(given, 0, kind="grounding") == expected
    own = unknown_names(given, 1, kind="grounding")
    assert "a brown puppy" in own


def test_sets_that_share_a_batch_know_their_own_categories(spine_world, tmp_path, spine_sample):
    vocabulary = replace(Vocabulary.of_card(card("dog", "boat")), alone=False)
    sample, other = (spine_sample(key=name, regions=[((0, 0, 9, 9), name)]) for name in ("dog", "shoe"))
    known = merge_cards([None])
    one = prepare_concepts(sample, recipe(), (64, 64), known, vocabulary, 0, 0)
    two = prepared(other, card("shoe", "ship"))
    assert unknown_names([one, two], 0) == {"shoe", "ship"}


def test_a_set_that_lists_all_its_categories_asks_nothing_of_the_loss(spine_world):
    source = Source(ShardSet.open(spine_world / "scenes" / "train"), 6)
    batches = ConceptBatches([source], recipe(), merge_cards([source.shards.card]), clip_tokenizer(), 0, 0, 1)
    assert batches.batch(0).knowledge.leaves_open == 0


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "000000000001.jpg")
    return tmp_path


def written(photo, annotations, categories, **more):
    image = {"id": 1, "file_name": "000000000001.jpg", "width": 64, "height": 48, **more}
    file = photo / "i.json"
    file.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": categories}))
    return file


def trained_on(folder):
    shards = ShardSet.open(folder)
    sample = shards.read_sample(0, 0)
    item = prepare_concepts(
        sample, recipe(), (64, 64), merge_cards([shards.card]), Vocabulary.of_card(shards.card), 0, 0
    )
    return sample, sorted({name for _, name in item.labels}), sorted(item.negatives)


def test_a_converted_crowd_is_no_region_and_no_negative(photo, tmp_path):
    names = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "boat"}]
    boxes = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 60, 40], "iscrowd": 1},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5, 5, 9, 9], "iscrowd": 0},
    ]
    made = convert_coco(photo, written(photo, boxes, names), tmp_path / "out", workers=1, progress=False)
    assert made["dropped"] == {"crowd": 1}
    sample, labels, negatives = trained_on(tmp_path / "out")
    assert (labels, negatives) == (["dog"], ["boat"])
    assert sample.extras["crowds"] == [{"box": [2, 2, 62, 42], "phrase": "person", "category_id": 1}]


def test_converted_lvis_is_federated_and_roots_stay_roots(photo, tmp_path):
    names = [{"id": k, "name": name, "frequency": "f"} for k, name in enumerate(("dog", "boat", "person", "shoe"), 1)]
    names[3]["synonyms"] = ["shoe", "sneaker"]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 9, 9]}]
    more = {"coco_url": "http://images.cocodataset.org/train2017/000000000001.jpg"}
    lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
    file = written(photo, boxes, names, **more, **lists)
    made = convert_lvis([photo], file, tmp_path / "out", workers=1, progress=False)
    assert made["federated"] is True
    assert made["categories"][3]["synonyms"] == ["shoe", "sneaker"]
    assert trained_on(tmp_path / "out")[1:] == (["dog"], ["boat"])
    rooted = [{"id": 0, "name": "dog", "supercategory": "none"}, {"id": 1, "name": "pug", "supercategory": "dog"}]
    file = written(photo, boxes, rooted)
    convert_coco(photo, file, tmp_path / "rooted", workers=1, progress=False)
    assert trained_on(tmp_path / "rooted")[1:] == (["pug"], [])
