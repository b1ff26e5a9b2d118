"""Files put together from byte ranges are what the library writes and reads."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mllm_bridge.weights.stored import hash_stored, hash_tensor
from mllm_bridge.weights.tensorfile import have_same_bytes, read_header, write_file


@pytest.fixture
def tensors():
    made = {
        "odd": torch.arange(3, dtype=torch.bfloat16),
        "wide": torch.arange(12, dtype=torch.float64).reshape(3, 4),
        "one": torch.tensor(7.0),
        "none": torch.zeros(0, 4),
        "half": torch.ones(5, dtype=torch.float16),
        "numbers": torch.arange(4),
        "flags": torch.tensor([True, False, True]),
    }
    return made


def test_what_lies_where_is_what_the_library_reads(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "a.safetensors")[0]
    assert {key: value.shape for key, value in found.items()} == {k: tuple(v.shape) for k, v in tensors.items()}
    assert {key: hash_stored(value) for key, value in found.items()} == {k: hash_tensor(v) for k, v in tensors.items()}
    assert read_header(tmp_path / "a.safetensors")[1] == {"format": "pt"}


def test_ranges_and_tensors_make_one_file_that_the_library_reads(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    stored = {f"old.{key}": value for key, value in read_header(tmp_path / "a.safetensors")[0].items()}
    fresh = {"new": torch.full((2, 2), 3.0), "turned": torch.arange(6.0).reshape(2, 3).T}
    total = write_file(tmp_path / "b.safetensors", {**stored, **fresh}, {"format": "pt"})
    expected = {**{f"old.{key}": value for key, value in tensors.items()}, **fresh}
    read = load_file(tmp_path / "b.safetensors")
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], expected[key]) and read[key].dtype == expected[key].dtype for key in read)
    assert total == sum(value.nbytes for value in expected.values())
    with safe_open(tmp_path / "b.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_each_tensor_starts_at_a_multiple_of_its_own_width(tmp_path, tensors):
    write_file(tmp_path / "a.safetensors", tensors, {})
    for key, stored in read_header(tmp_path / "a.safetensors")[0].items():
        assert stored.begin % tensors[key].element_size() == 0


def test_nothing_is_overwritten(tmp_path, tensors):
    write_file(tmp_path / "a.safetensors", tensors, {})
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a.safetensors", tensors, {})


def _entry(end, shape=(2,)):
    return json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a header of 0 bytes in a file of 0"),
        ((2**40).to_bytes(8, "little") + b"{}", "a header of 1099511627776 bytes"),
        ((4).to_bytes(8, "little") + b"oops", "its header cannot be read"),
        ((len(_entry(8))).to_bytes(8, "little") + _entry(8) + b"1234", "tensor x "),
        ((len(_entry(4))).to_bytes(8, "little") + _entry(4) + b"12345678", "tensor x "),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a.safetensors cannot be read as safetensors \(.*{message}.*is it complete"):
        read_header(tmp_path / "a.safetensors")


def test_bytes_are_compared_with_type_and_shape(tmp_path, tensors, monkeypatch):
    """As equal hashes say it, however many pieces a tensor is read in."""
    monkeypatch.setattr("mllm_bridge.weights.tensorfile.CHUNK", 5)
    changed = {key: value.clone() for key, value in tensors.items()}
    changed["wide"][2, 3] += 1
    changed["numbers"] = changed["numbers"].reshape(2, 2)
    changed["flags"] = changed["flags"].to(torch.uint8)
    save_file(tensors, tmp_path / "a.safetensors")
    save_file(changed, tmp_path / "b.safetensors")
    one, other = (read_header(tmp_path / f"{name}.safetensors")[0] for name in "ab")
    assert {key for key in one if not have_same_bytes(one[key], other[key])} == {"wide", "numbers", "flags"}
    assert {key for key in one if hash_stored(one[key]) != hash_stored(other[key])} == {"wide", "numbers", "flags"}
