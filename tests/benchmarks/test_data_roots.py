from pathlib import Path

import pytest

from benchmarks.data_roots import list_roots
from benchmarks.provenance import find_provenance
from cloc import data_root


def test_near_prefers_the_current_folder_and_falls_back_to_the_repository(tmp_path, monkeypatch):
    repository, here = tmp_path / "kit", tmp_path / "here"
    (repository / "runs").mkdir(parents=True)
    (repository / "pyproject.toml").write_text("")
    here.mkdir()
    monkeypatch.setattr(data_root, "REPOSITORY", repository)
    monkeypatch.chdir(here)
    assert data_root.find_near("runs") == repository / "runs"
    assert data_root.find_near("data") == Path("data")  # neither has one: it would be made here
    (here / "runs").mkdir()
    assert data_root.find_near("runs") == Path("runs")


def test_an_installed_copy_does_not_look_beside_itself(tmp_path, monkeypatch):
    (tmp_path / "site" / "runs").mkdir(parents=True)  # no pyproject.toml: not a repository
    monkeypatch.setattr(data_root, "REPOSITORY", tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    assert data_root.find_near("runs") == Path("runs")


def test_the_data_option_goes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOC_DATA", str(tmp_path))
    (tmp_path / "other").mkdir()
    assert data_root.find_data_root(None) == tmp_path
    assert data_root.find_data_root(str(tmp_path / "other")) == tmp_path / "other"
    with pytest.raises(ValueError, match="--data: expected a folder"):
        data_root.find_data_root(str(tmp_path / "none"))
    assert list_roots(tmp_path) == (tmp_path, tmp_path / "scenes")


def test_provenance_names_what_changes_numbers():
    found = find_provenance("cpu", seed=3)
    assert {"python", "mllm-vision-kit", "torch", "transformers", "numpy"} <= set(found.versions)
    assert "not installed" not in found.versions.values()
    assert found.machine.endswith("threads, CPU")
    assert found.commit
    assert found.seed == 3
