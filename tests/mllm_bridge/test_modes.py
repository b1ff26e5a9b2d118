"""Files that are handed over have the mode that the user's umask gives, not safetensors' 0600."""

import os
import shutil
import stat

import pytest

from cloc.disk import open_to_umask
from cloc.export.__main__ import main as export
from mllm_bridge.swap import command as swap


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=[0o022, 0o077, 0o002])
def mask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_an_export_its_conversions_and_a_swap(mask, spine_export, host_folder, tmp_path):
    folder = spine_export()
    assert modes(folder) == {0o666 & ~mask}
    for name in ("transformers", "open_clip", "timm"):
        assert export([str(folder), str(tmp_path / name), "--format", name]) == 0
        assert modes(tmp_path / name) == {0o666 & ~mask}
    tower = str(folder / "clip_vision_model")
    assert swap.main(["--mllm", str(host_folder), "--encoder", tower, "--out", str(tmp_path / "out")]) == 0
    assert modes(tmp_path / "out") == {0o666 & ~mask}


def test_links_and_files_of_others_stay_as_they_are(mask, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "x").write_text("x")
    (tmp_path / "a" / "x").chmod(0o600)
    os.link(tmp_path / "a" / "x", tmp_path / "b" / "x")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a" / "x")
    (tmp_path / "b" / "own").write_text("x")
    (tmp_path / "b" / "own").chmod(0o700)
    open_to_umask(tmp_path / "b")
    assert modes(tmp_path / "a") == {0o600}
    assert stat.S_IMODE((tmp_path / "b" / "own").stat().st_mode) == (0o111 & 0o700) | (0o666 & ~mask)


def test_an_export_with_links_or_into_itself_is_not_converted(spine_export, tmp_path, capsys):
    folder = spine_export()
    assert export([str(folder), str(folder / "deep" / "out"), "--format", "transformers"]) == 2
    assert "lies in" in capsys.readouterr().err
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "clip_vision_model" / "notes.txt").symlink_to("/etc/passwd")
    assert export([str(tmp_path / "copy"), str(tmp_path / "out"), "--format", "transformers"]) == 2
    assert "is a link to /etc/passwd" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
