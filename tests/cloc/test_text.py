import pytest
from transformers import AutoTokenizer, T5Tokenizer

from cloc import factory
from cloc.text import canonical, text_id
from cloc.tokenizer import MAX_TOKENS, check_end, clip_tokenizer, load_tokenizer, lower_cased

TEXTS = [
    "a photo of a cat",
    "Two DOGS,  playing\n\ton grass!",
    "don't stop: 3.14 / 100% naïve café",
    "日本語 и русский 🐈",
    "",
    "word " * 200,
]


def test_canonical_lowers_and_collapses_blanks():
    assert canonical("  A  Red\n\tCat ") == "a red cat"
    assert canonical(" \n") == ""


def test_text_ids_are_equal_for_equal_strings_only_and_fit_an_int64():
    assert text_id("A red  cat ") == text_id("a red cat")
    assert text_id("a red cat") != text_id("a red hat")
    ids = {text_id(f"phrase {i}") for i in range(2000)}
    assert len(ids) == 2000
    assert all(0 <= one < 2**63 for one in ids)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_tokens_are_those_of_open_clip(text):
    """open_clip reads the same vocabulary with code of its own."""
    import open_clip

    theirs = open_clip.get_tokenizer("ViT-B-32")([text])[0].tolist()
    ours = clip_tokenizer()([text], truncation=True)["input_ids"][0]
    last = theirs.index(49407)
    assert ours == theirs[: last + 1]
    assert len(ours) <= MAX_TOKENS


def test_the_vocabulary_has_clips_size_and_marks():
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (49406, 49407)


def test_a_loaded_tokenizer_is_the_callers_own():
    own = load_tokenizer("clip")
    own.model_max_length = 5
    assert load_tokenizer("clip").model_max_length == clip_tokenizer().model_max_length == MAX_TOKENS


def test_a_tokenizer_loads_from_a_folder(tmp_path):
    clip_tokenizer().save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert again(TEXTS[1])["input_ids"] == clip_tokenizer()(TEXTS[1])["input_ids"]


def test_a_name_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected clip, a transformers folder or a hub name"):
        load_tokenizer(str(tmp_path))


def test_a_copy_of_the_tokenizer_remembers_no_earlier_call():
    clip_tokenizer()(["a red ring"], padding="max_length", truncation=True, max_length=9)
    fresh = load_tokenizer("clip").backend_tokenizer
    assert fresh.truncation is None
    assert fresh.padding is None


@pytest.fixture
def t5():
    """A T5 with a handful of words, which tells cases apart as T5's does."""
    words = ["▁a", "▁cat", "▁Cat", "▁A", "▁dog", "▁", *"catCATdog"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0)]
    pieces += [(word, -float(number + 1)) for number, word in enumerate(dict.fromkeys(words))]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def test_a_t5_reads_lower_case_and_still_does_where_it_was_saved(t5, tmp_path):
    cased = t5("A Cat")["input_ids"]
    assert cased != t5("a cat")["input_ids"]
    t5.save_pretrained(tmp_path / "theirs")
    loaded = load_tokenizer(str(tmp_path / "theirs"), lower_case=True)
    loaded.model_max_length = 3
    loaded.save_pretrained(tmp_path / "export")
    again = AutoTokenizer.from_pretrained(tmp_path / "export")
    for one in (loaded, again):
        assert one("A Cat")["input_ids"] == one("a cat")["input_ids"] == t5("a cat")["input_ids"]
        assert (one.eos_token_id, one.pad_token_id, one.model_max_length) == (1, 0, 3)
        check_end(one, "t5")
    assert load_tokenizer(str(tmp_path / "theirs"))("A Cat")["input_ids"] == cased


def test_case_is_kept_where_a_tower_knows_it_and_never_from_scratch(t5, tmp_path, spine_config):
    t5.save_pretrained(tmp_path)
    cases = {True: {}, False: {"source": "somewhere"}}
    for lowered, extra in cases.items():
        config = spine_config(model__text={"tokenizer": str(tmp_path), "context": 8, **extra})
        one = factory.make_tokenizer(config)
        assert (one("A Cat")["input_ids"] == one("a cat")["input_ids"]) == lowered
    asked = spine_config(model__text={"tokenizer": str(tmp_path), "context": 8, "lower_case": False})
    assert factory.make_tokenizer(asked)("A Cat")["input_ids"] == t5("A Cat")["input_ids"]


def test_clips_tokenizer_is_left_as_it_is():
    own = load_tokenizer("clip")
    assert lower_cased(own) is own
