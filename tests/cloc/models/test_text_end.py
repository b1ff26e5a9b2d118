"""A text's vector is read at its end token, wherever the text is cut and whatever id its config gives the end."""

import itertools
import json

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from cloc import ClocForObjectDetection, factory
from cloc.models.configuration import ClocConfig
from cloc.text import concept_sentence
from cloc.tokenizer import clip_tokenizer, tokenise

LONG = "a thing that is made by hand for use in a house or in a garden and lasts for many years"
NAMES = [f"{colour} {size} {thing}" for colour, size, thing in itertools.product(
    ("red", "blue", "green", "white", "black", "brown", "pink", "grey", "gold", "purple"),
    ("tall", "small", "round", "flat", "old"),
    ("cup", "lamp", "chair", "bell", "rope", "drum"),
)]  # fmt: skip
SENTENCES = [concept_sentence(name, LONG) for name in NAMES]
"""300 texts of more than 16 tokens, as LVIS' `name, definition`; they differ within the first six."""


def with_end(model: ClocForObjectDetection, end: int) -> ClocForObjectDetection:
    model.text.config.eos_token_id = model.text.eos_token_id = end
    return model.eval()


@pytest.mark.parametrize("end", [2, 49407])
def test_long_concepts_have_vectors_of_their_own_equal_to_trainings(end, detector_model, detector_processor):
    model, processor = with_end(detector_model(text_context=16), end), detector_processor()
    whole, attention = tokenise(processor.tokenizer, SENTENCES)
    assert len(SENTENCES) == 300
    assert int(attention.sum(dim=1).min()) > 16
    with torch.no_grad():
        training = model.embed_concepts(*tokenise(processor.tokenizer, SENTENCES, 16))
        cut_by_the_model = model.embed_concepts(whole, attention)
        without_a_mask = model.embed_concepts(whole)
    inference = model.embed_concept_names(SENTENCES, processor)
    for found in (inference, cut_by_the_model, without_a_mask):
        torch.testing.assert_close(found, training, rtol=1e-5, atol=1e-6)
    apart = torch.cdist(inference, inference) + torch.eye(300)
    assert float(apart.min()) > 1e-4


@pytest.mark.photos
@pytest.mark.parametrize("end", [2, 49407])
def test_lvis_names_with_definitions_have_vectors_of_their_own(end, detector_model, detector_processor, sample_data):
    file = next(iter(sorted(sample_data.rglob("lvis_v1_train_cat_info.json"))), None)
    if file is None:
        pytest.skip("the sample data has no lvis_v1_train_cat_info.json")
    rows = json.loads(file.read_text(encoding="utf-8"))
    sentences = [concept_sentence(row["name"], row["def"]) for row in rows]
    processor = detector_processor()
    long = [s for s in sentences if len(processor.tokenizer(s)["input_ids"]) > 16][:300]
    model = with_end(detector_model(text_context=16), end)
    ids, attention = tokenise(processor.tokenizer, long, 16)
    with torch.no_grad():
        training = model.embed_concepts(ids, attention)
    found = model.embed_concept_names(long, processor)
    torch.testing.assert_close(found, training, rtol=1e-5, atol=1e-6)
    different = len(ids.unique(dim=0))
    assert len(found.mul(1e4).round().unique(dim=0)) == different == 300


def test_the_legacy_id_is_mended_in_an_export_of_an_older_version(detector_config, tmp_path):
    config = detector_config()
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    told = json.loads(file.read_text())
    told["text_config"]["eos_token_id"] = 2
    file.write_text(json.dumps(told))
    assert ClocConfig.from_pretrained(tmp_path).text_config.eos_token_id == 49407
    told["text_config"]["vocab_size"] = 1000  # no vocabulary of CLIP's: it stays what it was trained as
    file.write_text(json.dumps(told))
    assert ClocConfig.from_pretrained(tmp_path).text_config.eos_token_id == 2


@pytest.fixture
def legacy_clip(tmp_path):
    """A tiny CLIP whose config carries the id 2, as OpenAI's on the hub."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**shape, "max_position_embeddings": 24, "vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2}
    text["attention_dropout"] = 0.1
    config = CLIPConfig(vision_config={**shape, "image_size": 32, "patch_size": 8}, text_config=text, projection_dim=16)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    assert json.loads((tmp_path / "clip/config.json").read_text())["text_config"]["eos_token_id"] == 2
    return str(tmp_path / "clip")


@torch.no_grad()
def test_the_legacy_id_is_mended_on_start_and_the_vectors_stay(legacy_clip, spine_config):
    config = spine_config(model__text={"source": legacy_clip, "context": 24}, model__embed_dim=16)
    tokenizer = factory.make_tokenizer(config)
    model, _ = factory.make_model(config, tokenizer)
    assert model.config.text_config.eos_token_id == model.text.eos_token_id == 49407
    assert model.config.text_config.attention_dropout == 0.0  # what is drawn anew in each step
    theirs = CLIPModel.from_pretrained(legacy_clip).eval()
    ids, attention = tokenise(tokenizer, ["a cat", *SENTENCES[:20]])
    expected = torch.nn.functional.normalize(theirs.get_text_features(ids, attention).pooler_output, dim=-1)
    torch.testing.assert_close(model.eval().get_text_features(ids, attention), expected)
    torch.testing.assert_close(model.encode_text_groups((ids, attention))[0], expected, rtol=1e-4, atol=1e-5)


def other_tokenizer(end: str | None = "</s>", first: tuple[str, ...] = ("<pad>", "</s>", "<unk>")):
    """A little vocabulary of words; `end` closes every text, None: none does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate((*first, "a", "cat", "dog", "A", "Cat"))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if end:
        made.post_processor = processors.TemplateProcessing(f"$A {end}", special_tokens=[(end, vocabulary[end])])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_that_does_not_end_its_texts_is_refused(spine_config, tmp_path):
    other_tokenizer(end=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected one that ends every text with its end token.*use clip"):
        factory.make_tokenizer(spine_config(model__text__tokenizer=str(tmp_path)))


def test_a_tower_and_a_tokenizer_of_two_vocabularies_are_refused(legacy_clip, spine_config, tmp_path):
    other_tokenizer().save_pretrained(tmp_path)
    config = spine_config(model__text={"source": legacy_clip, "context": 24, "tokenizer": str(tmp_path)})
    with pytest.raises(ValueError, match=r"it pools at token 49407, the tokenizer's end token is 1 of 8; name"):
        factory.make_model(config, factory.make_tokenizer(config))


def test_a_tokenizer_whose_end_is_really_2_is_refused_for_a_fresh_tower(spine_config, tmp_path):
    other_tokenizer(first=("<pad>", "<unk>", "</s>")).save_pretrained(tmp_path)
    config = spine_config(model__text__tokenizer=str(tmp_path))
    with pytest.raises(ValueError, match=r"its end token has the id 2"):
        factory.make_model(config, factory.make_tokenizer(config))


def test_a_concept_longer_than_the_text_tower_is_refused(spine_raw):
    from cloc.config import parse_config

    raw = spine_raw(objective="detclip", model__text__context=12)
    raw["data"][0]["kind"] = "detection"
    with pytest.raises(ValueError, match=r"model.detector.text_context 16: the text tower reads .*context=12"):
        parse_config(raw)


def test_clips_vocabulary_ends_with_its_end():
    assert clip_tokenizer().eos_token_id == len(clip_tokenizer()) - 1 == 49407
