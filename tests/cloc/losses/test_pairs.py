"""Which contrast a form stands for, and that the objectives hand it their scales and biases."""

import pytest
import torch
from torch.nn import functional as F

from cloc.losses import pairs
from cloc.losses.contrastive import contrast_plain
from cloc.losses.pairs import Form, contrast_pairs
from cloc.losses.sigmoid import sigmoid_contrast_plain


def inputs(count=6):
    random = torch.Generator().manual_seed(0)
    rows, texts = (F.normalize(torch.randn(count, 5, dtype=torch.float64, generator=random), dim=-1) for _ in range(2))
    return rows, texts, torch.tensor(4.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)


@pytest.mark.parametrize("chunk", ["auto", "none", 4])
def test_every_way_gives_the_same_loss(chunk):
    rows, texts, scale, bias = inputs()
    ids = torch.tensor([0, 1, 0, 2, 3, 4])
    soft = contrast_pairs(Form("softmax", chunk), rows, texts, scale, None, ids, 0.5)
    torch.testing.assert_close(soft.loss, contrast_plain(rows, texts, scale, ids, 0.5))
    sigmoid = contrast_pairs(Form("sigmoid", chunk), rows, texts, scale, bias, ids, 0.5)
    torch.testing.assert_close(sigmoid.loss, sigmoid_contrast_plain(rows, texts, scale, bias, ids, 0.5))


@pytest.mark.parametrize(("kind", "name"), [("softmax", "contrast_chunked"), ("sigmoid", "sigmoid_contrast_chunked")])
def test_auto_takes_tiles_above_its_limit(kind, name, monkeypatch):
    rows, texts, scale, bias = inputs()
    called = []
    monkeypatch.setattr(pairs, name, lambda *arguments: called.append(arguments[-1]))
    contrast_pairs(Form(kind, "auto"), rows, texts, scale, bias)
    assert called == []
    monkeypatch.setattr(pairs, "WHOLE_UP_TO", 5)
    contrast_pairs(Form(kind, "auto"), rows, texts, scale, bias)
    contrast_pairs(Form(kind, "none"), rows, texts, scale, bias)
    contrast_pairs(Form(kind, 3), rows, texts, scale, bias)
    assert called == [None, 3]


def test_the_sigmoid_form_wants_a_bias():
    rows, texts, scale, _ = inputs()
    with pytest.raises(ValueError, match=r"loss\.form sigmoid: the model has no bias.*logit_bias_init_value=-10"):
        contrast_pairs(Form("sigmoid"), rows, texts, scale)
