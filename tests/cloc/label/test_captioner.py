"""Captions by tiny random models: one that goes on from nothing (BLIP), one that is asked in a chat (LLaVA)."""

import copy

import pytest
import torch

from cloc.label.captioner import describe_captioner, load_captioner


@pytest.fixture(scope="module")
def tiny_blip(tmp_path_factory, bert_tokenizer):
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 101, "eos_token_id": 102, "sep_token_id": 102, "pad_token_id": 0}
    text = {**small, **ids, "vocab_size": 1030, "encoder_hidden_size": 16, "max_position_embeddings": 32}
    config = BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16})
    folder = tmp_path_factory.mktemp("blip")
    BlipForConditionalGeneration(config).eval().save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, bert_tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_llava(tmp_path_factory, bert_tokenizer):
    import transformers as t

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**small, image_size=32, patch_size=16),
        text_config=t.LlamaConfig(**small, vocab_size=1030, pad_token_id=0, bos_token_id=101, eos_token_id=102),
        image_token_id=3,
    )
    folder = tmp_path_factory.mktemp("llava")
    t.LlavaForConditionalGeneration(config).eval().save_pretrained(folder)
    tokenizer = copy.deepcopy(bert_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[unused3]"]})
    template = "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}[unused3] "
    template += "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = t.LlavaProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="[unused3]",
        chat_template=template,
    )
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["tiny_blip", "tiny_llava"])
def test_a_caption_for_each_image_the_same_every_time(name, request, spine_picture):
    folder = str(request.getfixturevalue(name))
    assert set(describe_captioner(folder)) == {"name", "type", "licence", "weights_sha256"}
    captioner = load_captioner(folder, "the dog and the cat", 5)
    pictures = [spine_picture(40, 30, seed=1), spine_picture(20, 50, seed=2)]
    captions = captioner.caption(pictures)
    assert len(captions) == 2
    assert all(isinstance(caption, str) and len(caption.split()) <= 8 for caption in captions)
    assert "the dog and the cat" not in captions[0]  # the question is no part of the answer
    assert captioner.caption(pictures) == captions
    assert captioner.caption(pictures[:1]) == captions[:1]


def test_a_detector_is_no_captioner(tiny_owl):
    told = "expected an image-text-to-text model of transformers, got one of type 'owlv2'"
    with pytest.raises(ValueError, match=told):
        describe_captioner(str(tiny_owl))
