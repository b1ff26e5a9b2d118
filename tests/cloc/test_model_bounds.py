"""Sizes in a model's config that no model has are refused before the library builds anything."""

import json

import pytest

from cloc.model_bounds import check_sizes
from cloc.model_folders import refusing_code


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**7},
        {"depths": [2, 10**7]},
        {"detector_config": {"num_convs": 10**7}},
        {"vision_config": {"tower": {"hidden_size": 1e9}}},
        {"text_config": {"vocab_size": 10**12}},
        {"image_size": {"height": 10**6, "width": 10**6}},
        {"num_hidden_layers": float("inf")},
    ],
    ids=str,
)
def test_an_absurd_size_is_refused_around_every_load(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config"), refusing_code(tmp_path):
        raise AssertionError("the library would have been asked")


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 48, "vocab_size": 262_400, "max_position_embeddings": 1 << 20},
        {"num_hidden_layers": 0, "image_size": [336, 336], "patch_size": None, "depths": [2, 2, 18, 2]},
        {"width": 0.75, "layers": ["conv", "pool"], "window": {"size": 7}, "head_dim": "auto"},
    ],
    ids=str,
)
def test_what_models_have_and_what_is_no_size_passes(config):
    check_sizes(config, "model")
