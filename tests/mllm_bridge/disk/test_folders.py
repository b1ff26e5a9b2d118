import pytest

from cloc.disk import atomic_dir
from mllm_bridge.weights.folders import locate, read_json


def test_missing_folder_that_is_no_hub_name_either():
    with pytest.raises(
        ValueError, match=r"host: there is no folder ./nowhere/at/all; pass a folder with a config.json"
    ):
        locate("./nowhere/at/all", "host")


def test_hub_name_that_cannot_be_fetched(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr("mllm_bridge.weights.folders.snapshot_download", offline)
    with pytest.raises(
        ValueError, match=r"no folder owner/model, and the hub gave no model of that name \(ConnectionError\)"
    ):
        locate("owner/model", "host")


def test_hub_name_gives_the_fetched_folder_and_asks_for_no_pickles(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    asked = {}
    monkeypatch.setattr(
        "mllm_bridge.weights.folders.snapshot_download", lambda name, **how: asked.update(name=name, **how) or tmp_path
    )
    assert locate("owner/model", "host") == tmp_path
    assert asked["name"] == "owner/model"
    assert not any(pattern.endswith((".bin", ".pt", ".pth")) for pattern in asked["allow_patterns"])


def test_broken_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: expected a JSON object, got text that is no JSON"):
        read_json(tmp_path / "config.json")


def _write_and_fail(out):
    with atomic_dir(out) as folder:
        (folder / "part").write_text("x")
        raise RuntimeError("half-way")


def test_result_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="half-way"):
        _write_and_fail(out)
    assert list(tmp_path.iterdir()) == []
    with atomic_dir(out) as folder:
        (folder / "part").write_text("x")
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "kept").write_text("x")
    with pytest.raises(ValueError, match=r"exists and is not empty; nothing is overwritten: pass another --out"):
        atomic_dir(tmp_path).__enter__()
    assert (tmp_path / "kept").read_text() == "x"
