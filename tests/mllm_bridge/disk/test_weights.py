import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm_bridge.weights.stored import (
    FolderWeights,
    combine_hashes,
    find_part,
    hash_tensor,
    read_tensors,
    write_replaced,
)

PREFIXES = ("model.vision_tower.", "vision_tower.")


@pytest.mark.parametrize("prefix", ["vision_tower.", "model.vision_tower."])
@pytest.mark.parametrize("level", ["", "vision_model."])
def test_part_is_found_in_each_layout(prefix, level):
    keys = [f"{prefix}{level}embeddings.weight", f"{prefix}{level}norm.bias", "language_model.weight"]
    part = find_part(keys, PREFIXES)
    assert part.prefix == prefix + level
    assert [part.name(key) for key in part.keys] == ["embeddings.weight", "norm.bias"]


def test_part_that_is_not_there():
    assert find_part(["language_model.weight"], PREFIXES) is None


def test_hash_sees_type_shape_and_bytes():
    tensor = torch.arange(6, dtype=torch.float32)
    others = [tensor.reshape(2, 3), tensor.to(torch.bfloat16), tensor + 1]
    hashes = {hash_tensor(value) for value in [tensor, *others]}
    assert len(hashes) == 4
    assert hash_tensor(tensor.clone()) == hash_tensor(tensor)
    assert hash_tensor(torch.tensor(1.0)) != hash_tensor(torch.tensor([1.0]))


def test_combined_hash_does_not_depend_on_order():
    assert (
        combine_hashes({"a": "1", "b": "2"})
        == combine_hashes({"b": "2", "a": "1"})
        != combine_hashes({"a": "2", "b": "1"})
    )


def _sharded(folder):
    folder.mkdir()
    shards = {
        "model-1.safetensors": {"language_model.a": torch.ones(3, dtype=torch.bfloat16)},
        "model-2.safetensors": {"vision_tower.x": torch.zeros(2), "language_model.b": torch.full((2,), 7.0)},
        "model-3.safetensors": {"vision_tower.y": torch.zeros(4)},
    }
    for name, tensors in shards.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    named = {key: name for name, tensors in shards.items() for key in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))
    return folder


def test_shards_are_rewritten_only_where_a_part_goes(tmp_path):
    host, out = _sharded(tmp_path / "host"), tmp_path / "out"
    out.mkdir()
    new = {"tower": {"vision_tower.z": torch.full((5,), 2.0)}}
    write_replaced(FolderWeights.open(host), out, {"vision_tower.x": "tower", "vision_tower.y": "tower"}, new)
    written = FolderWeights.open(out).tensors
    assert {key: stored.file.name for key, stored in written.items()} == {
        "language_model.a": "model-1.safetensors",
        "language_model.b": "model-2.safetensors",
        "vision_tower.z": "model-2.safetensors",
    }
    assert (out / "model-1.safetensors").read_bytes() == (host / "model-1.safetensors").read_bytes()
    assert not (out / "model-3.safetensors").exists()
    tensors = dict(read_tensors(written))
    assert torch.equal(tensors["language_model.b"], torch.full((2,), 7.0))
    assert torch.equal(tensors["vision_tower.z"], torch.full((5,), 2.0))
    assert (
        json.loads((out / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
        == 3 * 2 + 2 * 4 + 5 * 4
    )


def test_index_that_names_a_missing_file(tmp_path):
    host = _sharded(tmp_path / "host")
    (host / "model-3.safetensors").unlink()
    with pytest.raises(ValueError, match=r"index.json names model-3.safetensors, which is not there"):
        FolderWeights.open(host)


def test_index_that_names_a_key_no_file_holds(tmp_path):
    host = _sharded(tmp_path / "host")
    save_file({"other": torch.zeros(1)}, host / "model-3.safetensors")
    with pytest.raises(ValueError, match=r"names vision_tower.y \(and 0 more\), which no file holds"):
        FolderWeights.open(host)


def test_file_cut_in_half(tmp_path):
    save_file({"a": torch.zeros(100)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read as safetensors .* is it complete"):
        FolderWeights.open(tmp_path)


def test_folder_without_safetensors(tmp_path):
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled weights are never loaded"):
        FolderWeights.open(tmp_path)


def test_single_file_host_stays_a_single_file(tmp_path):
    save_file({"a": torch.ones(2), "vision_tower.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    write_replaced(
        FolderWeights.open(tmp_path), out, {"vision_tower.x": "tower"}, {"tower": {"vision_tower.x": torch.ones(3)}}
    )
    assert {key: value.numel() for key, value in load_file(out / "model.safetensors").items()} == {
        "a": 2,
        "vision_tower.x": 3,
    }
    assert not (out / "model.safetensors.index.json").exists()


def test_files_without_a_part_are_linked_and_the_others_put_together_anew(tmp_path):
    host, out, copied = _sharded(tmp_path / "host"), tmp_path / "out", tmp_path / "copied"
    out.mkdir()
    copied.mkdir()
    gone, new = {"vision_tower.x": "tower", "vision_tower.y": "tower"}, {"tower": {"vision_tower.z": torch.ones(5)}}
    done = write_replaced(FolderWeights.open(host), out, gone, new)
    assert done == {
        "model-1.safetensors": "linked",
        "model-2.safetensors": "rewritten",
        "model-3.safetensors": "dropped",
    }
    assert (out / "model-1.safetensors").samefile(host / "model-1.safetensors")
    assert write_replaced(FolderWeights.open(host), copied, gone, new, link=False)["model-1.safetensors"] == "copied"
    for name in ("model-1.safetensors", "model-2.safetensors"):
        assert (copied / name).read_bytes() == (out / name).read_bytes()


def test_file_system_that_cannot_link(tmp_path, monkeypatch):
    host, out = _sharded(tmp_path / "host"), tmp_path / "out"
    out.mkdir()

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("mllm_bridge.weights.stored.os.link", refuse)
    assert write_replaced(FolderWeights.open(host), out, {}, {})["model-1.safetensors"] == "copied"


@pytest.mark.parametrize(
    "named",
    [{"x": "a/m.safetensors", "y": "b/m.safetensors"}, {"x": "../m.safetensors"}, {"x": 3}, ["x"], None],
    ids=str,
)
def test_an_index_names_files_of_its_own_folder(named, tmp_path):
    """Two files of one name would share a place in the result, which may be a hard link to the host's own file."""
    host, out = tmp_path / "host", tmp_path / "out"
    for folder in (host / "a", host / "b", out):
        folder.mkdir(parents=True)
    save_file({"x": torch.zeros(4)}, host / "a/m.safetensors")
    save_file({"y": torch.ones(64)}, host / "b/m.safetensors")
    save_file({"x": torch.zeros(4)}, tmp_path / "m.safetensors")
    (host / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    before = (host / "a/m.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"expected a weight_map from keys to names of files in its own folder"):
        write_replaced(FolderWeights.open(host), out, {}, {})
    assert (host / "a/m.safetensors").read_bytes() == before
    assert list(out.iterdir()) == []
