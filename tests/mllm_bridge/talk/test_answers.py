import pytest
from PIL import Image
from transformers import AutoProcessor

from mllm_bridge.conversations.answers import IGNORED, encode, find_answers
from mllm_bridge.conversations.reading import Turn

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] + ']\n\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\n\n' }}{% endif %}"
)
TALK = (
    Turn("user", "<image>\nWhich colour?"),
    Turn("assistant", "It is red, [0.1, 0.2]."),
    Turn("user", "Is it red?"),
    Turn("assistant", "yes"),
)
SHORT = (Turn("user", "Say: yes"), Turn("assistant", "Say: yes"))


@pytest.fixture
def processor(host_folder):
    return AutoProcessor.from_pretrained(host_folder)


def _with(processor, template):
    processor.chat_template = template or processor.chat_template
    if template == CHATML:
        marks = {"additional_special_tokens": ["<image>", "<|im_start|>", "<|im_end|>"]}
        processor.tokenizer.add_special_tokens(marks)
    return processor


def _plain(processor, ids):
    return processor.tokenizer.decode(ids).replace("</w>", " ").replace(" .", ".").split()


def _said(processor, labels):
    """The answers' tokens as text, one string a row."""
    return ["".join(_plain(processor, row[row != IGNORED])) for row in labels]


@pytest.mark.parametrize(
    ("template", "end"),
    [(None, "<|endoftext|>"), (LLAVA, "<|endoftext|>"), (CHATML, "<|im_end|>"), (LLAMA3, "<|endoftext|>")],
    ids=["tiny", "llava", "chatml", "llama3"],
)
def test_the_loss_is_on_the_answers_and_their_ends_alone(processor, template, end):
    processor = _with(processor, template)
    image = Image.new("RGB", (40, 30))
    inputs, labels = encode(processor, [TALK, SHORT], [[image], []])
    assert _said(processor, labels) == [f"itisred,[0.1,0.2].{end}yes{end}", f"say:yes{end}"]
    assert (labels[inputs["attention_mask"] == 0] == IGNORED).all()
    spoken = labels != IGNORED
    moved = (labels != inputs["input_ids"]) & spoken
    # Only where the template writes no end of turn is a label another token than the one that stands there.
    assert int(moved.sum()) == (1 if template in (None, LLAVA) else 0)
    starts = (inputs["input_ids"] == processor.tokenizer.bos_token_id).sum(dim=1)
    assert starts.tolist() == [1, 1]


def test_a_batch_equals_its_conversations_one_by_one(processor):
    image = Image.new("RGB", (40, 30), "red")
    together = encode(processor, [TALK, SHORT], [[image], []])
    for row, (turns, images) in enumerate([(TALK, [image]), (SHORT, [])]):
        alone, labels = encode(processor, [turns], [images])
        length = labels.shape[1]
        assert together[0]["input_ids"][row, :length].equal(alone["input_ids"][0])
        assert together[1][row, :length].equal(labels[0])
        assert (together[1][row, length:] == IGNORED).all()


def test_answers_behind_a_second_image_are_found(processor):
    turns = (*TALK[:2], Turn("user", "<image> And <image> here?"), Turn("assistant", "blue"))
    images = [[Image.new("RGB", (40, 30))] * 3]
    _, labels = encode(processor, [turns], images)
    assert _said(processor, labels) == ["itisred,[0.1,0.2].<|endoftext|>blue<|endoftext|>"]


def test_a_template_that_changes_answers_is_refused(processor):
    processor.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(ValueError, match="does not write the answer"):
        find_answers(processor, SHORT)
    processor.chat_template = None
    with pytest.raises(ValueError, match="its processor has no chat template"):
        find_answers(processor, SHORT)
