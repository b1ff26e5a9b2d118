"""Each thing that can be wrong by one, set wrong on purpose."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm_bridge.hosts import DEFAULT
from mllm_bridge.hosts.loading import load_host, load_processor
from mllm_bridge.swap.checks import VerifyError
from mllm_bridge.swap.verify import verify
from mllm_bridge.weights.stored import FolderWeights

WRONG = {
    "patch size of the processor": (
        {"processor_config.json": {"patch_size": 16}},
        ["processor patch_size: found 16, the tower asks for 8", "placeholders of the 1:1 picture: found 9, .* for 36"],
    ),
    "patch size of the config": (
        {"config.json": {"vision_config__patch_size": 16}},
        ["config vision_config.patch_size: found 16, the tower asks for 8"],
    ),
    "image size": (
        {"config.json": {"vision_config__image_size": 56}},
        ["config vision_config.image_size: found 56, the tower asks for 48"],
    ),
    "extra tokens": (
        {"processor_config.json": {"num_additional_image_tokens": 0}},
        [
            "processor num_additional_image_tokens: found 0, the tower asks for 1",
            "placeholders .*: found 35, .* for 36",
        ],
    ),
    "strategy of the processor": (
        {"processor_config.json": {"vision_feature_select_strategy": "full"}},
        ["processor vision_feature_select_strategy: found 'full'", "placeholders .*: found 37, .* for 36"],
    ),
    "strategy of the config": (
        {"config.json": {"vision_feature_select_strategy": "full"}},
        ["config vision_feature_select_strategy: found 'full', the tower asks for 'default'"],
    ),
    "sequence length": (
        {"config.json": {"image_seq_length": 37}},
        ["config image_seq_length: found 37, the tower asks for 36"],
    ),
    "mean": (
        {"processor_config.json": {"image_processor__image_mean": [0.5, 0.5, 0.5]}},
        [r"mean: found \[0.5, 0.5, 0.5\]", "pixels of the 1:1 picture: the host's pixels differ"],
    ),
    "deviation": (
        {"processor_config.json": {"image_processor__image_std": [0.5, 0.5, 0.5]}},
        [r"deviation: found \[0.5, 0.5, 0.5\]", "pixels of the 1:1 picture: the host's pixels differ"],
    ),
    "crop instead of pad": (
        {"processor_config.json": {"image_processor__do_pad": False, "image_processor__do_center_crop": True}},
        [
            "geometry: found 'shortest edge resized to 48 px, cropped at the centre .* asks for 'padded to a square",
            "pixels of the 2:1 picture: the host's pixels differ",
        ],
    ),
    "another way of resizing": (
        {"processor_config.json": {"image_processor__resample": 0}},
        ["image processor resample: found", "pixels of the large picture: the host's pixels differ"],
    ),
    "image size of the processor": (
        {
            "processor_config.json": {
                "image_processor__size": {"shortest_edge": 56},
                "image_processor__crop_size": {"height": 56, "width": 56},
            }
        },
        [r"pixels of the tiny picture: the host makes \(1, 3, 56, 56\)"],
    ),
    "size that the processor announces": (
        {"processor_config.json": {"image_processor__crop_size": {"height": 224, "width": 224}}},
        ["cropped at the centre to 224 x 224 px', the tower asks for 'padded to a square"],
    ),
    "file for old readers": (
        {"preprocessor_config.json": {"image_mean": [0.5, 0.5, 0.5]}},
        [r"fields that differ in preprocessor_config.json: found \['image_mean'\]"],
    ),
    "image token": (
        {"config.json": {"image_token_index": 5}},
        ["image token: config 5, processor 654"],
    ),
}


RUNNING = {"tower features", "image tokens equal placeholders", "forward", "generate", "save and reload"}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_by_one_is_caught(wrong, swapped, encoder, edit_json):
    files, messages = WRONG[wrong]
    for name, fields in files.items():
        edit_json(swapped / name, **fields)
    with pytest.raises(VerifyError) as caught:
        verify(swapped, encoder)
    for message in messages:
        caught.match(f"(?s){message}")


def test_a_right_host_passes(swapped, encoder, host_folder):
    light = {check.name for check in verify(swapped, encoder, host=FolderWeights.open(host_folder))}
    assert {"tower weights", "other weights", "keys and shapes", "mean", "placeholders of the 1:3 picture"} <= light
    assert not RUNNING & light
    full = {check.name for check in verify(swapped, encoder, host=FolderWeights.open(host_folder), full=True)}
    assert full == light | RUNNING


def _spoil(folder, key_part, change):
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key in sorted(tensors) if key_part in key)
    change(tensors, key)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _nudge(tensors, key):
    tensors[key].view(-1)[0] += 1e-6


def test_one_altered_number_in_the_tower_is_caught(swapped, encoder):
    _spoil(swapped, "vision_tower.vision_model.embeddings.class_embedding", _nudge)
    with pytest.raises(
        VerifyError, match=r"tower weights: 1 of 71 tensors are not the encoder's, the first is embeddings"
    ):
        verify(swapped, encoder)


def test_one_altered_number_in_the_language_model_is_caught(swapped, encoder, host_folder):
    _spoil(swapped, "language_model.model.norm", _nudge)
    with pytest.raises(VerifyError, match=r"other weights: 1 changed, the first is language_model.model.norm.weight"):
        verify(swapped, encoder, host=FolderWeights.open(host_folder))


def test_a_projector_that_should_have_been_kept(swapped, encoder, host_folder):
    with pytest.raises(VerifyError, match=r"other weights: \d changed, the first is multi_modal_projector"):
        verify(swapped, encoder, host=FolderWeights.open(host_folder), keep_projector=True)


def test_a_lost_tensor_is_an_error_and_not_a_warning(swapped, encoder):
    _spoil(swapped, "language_model.model.norm", lambda tensors, key: tensors.pop(key))
    with pytest.raises(VerifyError, match=r"keys and shapes: missing_keys: 1, as .*norm.weight"):
        verify(swapped, encoder)
    with pytest.raises(ValueError, match=r"does not hold just its own weights: missing_keys: 1, as .*norm.weight"):
        load_host(swapped, DEFAULT, "cpu")


def test_a_tensor_too_many_is_an_error_and_not_a_warning(swapped, encoder):
    _spoil(swapped, "norm", lambda tensors, key: tensors.update({"language_model.stray": torch.zeros(1)}))
    with pytest.raises(VerifyError, match=r"keys and shapes: unexpected_keys: 1, as .*stray"):
        verify(swapped, encoder)


def test_a_tensor_of_another_shape_is_an_error_and_not_a_warning(swapped, encoder):
    _spoil(swapped, "language_model.model.norm", lambda tensors, key: tensors.update({key: torch.zeros(3)}))
    with pytest.raises(VerifyError, match=r"keys and shapes: mismatched_keys: 1, as .*norm.weight"):
        verify(swapped, encoder)


def test_weights_that_are_not_numbers_are_caught(swapped, encoder):
    _spoil(swapped, "multi_modal_projector.linear_2.bias", lambda tensors, key: tensors[key].fill_(float("nan")))
    with pytest.raises(VerifyError, match=r"forward: .*not all of them finite"):
        verify(swapped, encoder, full=True)


def test_host_without_processor(swapped):
    for name in ("processor_config.json", "preprocessor_config.json"):
        (swapped / name).unlink()
    with pytest.raises(ValueError, match=r"holds no processor .*processor.save_pretrained\(folder\)"):
        load_processor(swapped)


def test_host_with_an_image_processor_only(swapped):
    (swapped / "processor_config.json").unlink()
    for path in swapped.glob("token*"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"the processor in .* cannot be read|expected a processor with an image processor"
    ):
        load_processor(swapped)
