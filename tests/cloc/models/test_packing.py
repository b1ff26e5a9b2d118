"""Texts packed into rows: the same features and gradients as one padded row a text, ragged and empty."""

import copy

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, SiglipTextConfig, SiglipTextModel

from cloc.models.packing import assign_rows, can_pack, encode_packed, pack
from cloc.tokenizer import clip_tokenizer

CAPTIONS = ["a red square left of a blue circle on a plain ground", "two dogs"]
PHRASES = ["dog", "the red square that lies to the left of a blue circle", "cat", "a green star", "sky"]


def tower(attention="sdpa", **more):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, eos_token_id=49407, bos_token_id=49406, attn_implementation=attention, **more,
    )  # fmt: skip
    return CLIPTextModel(config).double().eval()


def tokens(texts):
    if not texts:
        return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
    found = clip_tokenizer()(texts, padding=True, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


def plain(model, groups):
    pooled = [model(input_ids=i, attention_mask=a).pooler_output for i, a in groups if len(i)]
    return torch.cat(pooled)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("texts", [(CAPTIONS, PHRASES), ([], PHRASES), (CAPTIONS, []), (["sky"], ["dog"]), (CAPTIONS,)])
def test_packed_is_padded_in_value_and_gradient(attention, texts):
    groups, model = [tokens(part) for part in texts], tower(attention)
    twin = copy.deepcopy(model)
    ours, theirs = encode_packed(model, pack(groups, 49407)), plain(twin, groups)
    exact = attention == "sdpa"  # the other one takes its softmax in fp32, which rounds as the processor has it
    torch.testing.assert_close(
        ours, theirs, **({"rtol": 1e-10, "atol": 1e-12} if exact else {"rtol": 1e-5, "atol": 1e-6})
    )
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        close = {"rtol": 1e-8, "atol": 1e-11} if exact else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(one.grad, other.grad, **close, msg=name)


def test_a_text_is_blind_to_its_neighbours():
    groups = [tokens(CAPTIONS), tokens(PHRASES)]
    packed, model = pack(groups, 49407), tower()
    assert len(packed.input_ids) < len(CAPTIONS) + len(PHRASES)  # some row holds several
    alone = encode_packed(model, pack([tokens(["cat"])], 49407))
    torch.testing.assert_close(encode_packed(model, packed)[4:5], alone, rtol=1e-10, atol=1e-12)


def test_rows_hold_every_text_once_without_overlap():
    lengths = torch.randint(1, 20, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    starts, rows = assign_rows(lengths)
    taken = sorted(p for start, length in zip(starts, lengths, strict=True) for p in range(start, start + length))
    assert len(taken) == len(set(taken)) == sum(lengths)
    assert all(s // max(lengths) == (s + n - 1) // max(lengths) for s, n in zip(starts, lengths, strict=True))
    assert rows * max(lengths) < 1.15 * sum(lengths)
    assert assign_rows([7]) == ([0], 1)


def test_padding_on_the_left_is_refused():
    ids, attention = torch.tensor([[0, 5, 49407], [4, 5, 49407]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match=r"expected padding on the right.*padding_side to 'right'"):
        pack([(ids, attention)], 49407)


def test_only_causal_towers_are_packed():
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert can_pack(tower())
    assert not can_pack(SiglipTextModel(SiglipTextConfig(vocab_size=64, **small)))
    old = tower()
    old.config.eos_token_id = 2
    assert not can_pack(old)
    old = tower()
    old.config._attn_implementation = "flash_attention_2"
    assert not can_pack(old)


def test_the_model_gives_the_same_with_and_without_packing(spine_export):
    import cloc

    model = cloc.ClocModel.from_pretrained(spine_export()).double().eval()
    groups = [tokens(["sky", "two dogs"]), tokens([])]
    packed = model.encode_text_groups(*groups)
    assert [len(one) for one in packed] == [2, 0]
    torch.testing.assert_close(packed[0], model.get_text_features(*groups[0]), rtol=1e-8, atol=1e-10)
    nothing = model.encode_text_groups(groups[1], groups[1])
    assert [len(one) for one in nothing] == [0, 0]
    nothing[0].sum().backward()
    assert all(p.grad is not None for p in model.text.parameters())
