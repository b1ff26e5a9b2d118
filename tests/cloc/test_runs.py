import os
from pathlib import Path

import pytest

from cloc import runs


def finished(folder: Path) -> Path:
    (folder / "export").mkdir()
    (folder / "export" / "export.json").write_text("{}")
    return folder


def checkpointed(folder: Path, step: int) -> Path:
    path = folder / "checkpoints" / f"step-{step}"
    path.mkdir(parents=True)
    (path / "state.json").write_text("{}")
    return path


def at(folder: Path, time: float) -> Path:
    os.utime(folder / "config.yaml", (time, time))
    return folder


def test_a_run_is_never_overwritten(spine_config, tmp_path):
    config = spine_config()
    made = [runs.new_run(tmp_path / "runs", config) for _ in range(3)]
    assert [folder.name for folder in made] == ["tiny", "tiny-2", "tiny-3"]
    assert all(runs.read_config(folder) == config for folder in made)


def test_auto_takes_the_newest_unfinished_run_of_equal_config(spine_config, tmp_path):
    config, other = spine_config(), spine_config(optim__lr=2e-3)
    first, second, third = (at(runs.new_run(tmp_path, config), time) for time in (100, 300, 200))
    at(finished(runs.new_run(tmp_path, config)), 900)
    at(runs.new_run(tmp_path, other), 800)
    assert runs.find_run(tmp_path, config, "auto") == (second, None)
    checkpointed(second, 9)
    newest = checkpointed(second, 10)
    assert runs.find_run(tmp_path, config, "auto") == (second, newest)
    finished(second)
    assert runs.find_run(tmp_path, config, "auto") == (third, None)
    assert runs.find_run(tmp_path, config, str(first)) == (first, None)


def test_runs_that_cannot_be_read_are_passed_over(spine_config, tmp_path):
    config = spine_config()
    mine = at(runs.new_run(tmp_path, config), 100)
    for name, text in (("old", "data: []\ngone: 1\n"), ("cut", "data: [{pa"), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    assert runs.find_run(tmp_path, config, "auto") == (mine, None)


def test_nothing_to_resume_is_said(spine_config, tmp_path):
    config = spine_config()
    with pytest.raises(ValueError, match=r"--resume auto: no unfinished run of this config under .*; start one"):
        runs.find_run(tmp_path, config, "auto")
    with pytest.raises(ValueError, match=r"--resume .*nowhere: no run \(config\.yaml is missing\); expected auto or"):
        runs.find_run(tmp_path, config, str(tmp_path / "nowhere"))
    folder = runs.new_run(tmp_path, config)
    with pytest.raises(ValueError, match=r"its config differs in loss, optim; use its own config\.yaml"):
        runs.find_run(tmp_path, spine_config(optim__lr=2e-3, loss__regions_per_image=1), str(folder))
    finished(folder)
    with pytest.raises(ValueError, match="the run is finished; its export is"):
        runs.find_run(tmp_path, config, str(folder))


def test_a_damaged_config_of_a_named_run_is_one_clear_error(spine_config, tmp_path):
    folder = runs.new_run(tmp_path, spine_config())
    (folder / "config.yaml").write_text("data: [{pa")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        runs.find_run(tmp_path, spine_config(), str(folder))


@pytest.mark.multiprocess
def test_all_ranks_hear_what_the_main_rank_found(spine_config, spine_group, tmp_path):
    config = spine_config()

    def work(rank):
        made = runs.open_run(tmp_path, config, None)
        again = runs.open_run(tmp_path, config, "auto")
        try:
            runs.open_run(tmp_path, config, str(tmp_path / "nowhere"))
        except ValueError as error:
            return made, again, str(error)

    one, two = spine_group(2, lambda rank: [str(part) for part in work(rank)])
    assert one == two
    assert "no run" in one[2]
    assert [path.name for path in tmp_path.glob("tiny*")] == ["tiny"]


def test_a_folder_of_runs_below_a_file_is_named(spine_config, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"--runs .*file/runs: the folder of the run cannot be made or read \("):
        runs.open_run(tmp_path / "file" / "runs", spine_config(), None)
