"""The job over shards, and files that appear whole: what its three users do not ask."""

import hashlib
import os
from dataclasses import replace

import pytest

from cloc.disk import atomic_write, write_text
from cloc.scenes import WorldSpec
from cloc.scenes.detection_samples import list_folder_plans
from cloc.scenes.training import make_numbered_sample, write_folder

SPEC = WorldSpec(train=6, val=1, refcoco=1, size=32, shard_size=2)


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_killed_rendering_goes_on_with_its_finished_shards(tmp_path):
    (plan,) = list_folder_plans(SPEC)
    write_folder(SPEC, plan, tmp_path / "whole", 1, progress=False)

    def dies(spec, index):
        if index == 4:
            os._exit(9)
        return make_numbered_sample(spec, index)

    child = os.fork()
    if child == 0:
        write_folder(SPEC, replace(plan, sample=dies), tmp_path / "train", 1, progress=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".train.part").glob("0*.tar")}
    assert sorted(kept) == ["000000.tar", "000001.tar"]
    write_folder(SPEC, plan, tmp_path / "train", 1, progress=False)
    assert hashes(tmp_path / "train") == hashes(tmp_path / "whole")
    assert {name: (tmp_path / "train" / name).stat().st_mtime_ns for name in kept} == kept
    assert not (tmp_path / ".train.part").exists()


def test_a_file_appears_whole_or_stays_what_it_was(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "one")
    with pytest.raises(RuntimeError, match="half-way"):
        _write_half(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "one"


def _write_half(file):
    with atomic_write(file) as part:
        part.write_text("tw")
        raise RuntimeError("half-way")
