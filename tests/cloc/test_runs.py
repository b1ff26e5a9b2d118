import os
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from cloc import disk
from cloc.train import checkpoint, runs


def finished(folder: Path) -> Path:
    (folder / "export").mkdir()
    (folder / "export" / "export.json").write_text("{}")
    return folder


def checkpointed(folder: Path, step: int) -> Path:
    temporary = checkpoint.begin(folder / "checkpoints", step)
    checkpoint.write_tensors(temporary, {"w": torch.zeros(1)}, {})
    return checkpoint.finish(temporary, {"step": step}, 9)


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
    told = r"differs in loss\.regions_per_image \(there 3, asked 1\), optim\.lr \(there 0\.001, asked 0\.002\); leave"
    with pytest.raises(ValueError, match=told):
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


def test_fields_that_do_not_decide_the_weights_may_differ_in_a_named_run(spine_config, tmp_path):
    folder = runs.new_run(tmp_path, spine_config())
    other = spine_config(run__workers=1, run__name="other", train__log_every=9, train__keep_checkpoints=7)
    assert runs.find_run(tmp_path, other, str(folder)) == (folder, None)
    with pytest.raises(ValueError, match="no unfinished run of this config"):
        runs.find_run(tmp_path, other, "auto")


def test_a_run_is_made_longer_and_its_shorter_export_stays_beside(spine_config, tmp_path, capsys):
    config, longer = spine_config(), spine_config(train__steps=9)
    folder = runs.new_run(tmp_path, config)
    step = checkpointed(folder, 6)
    finished(folder)
    for steps in (4, 6):
        with pytest.raises(ValueError, match=r"steps are done|is finished"):
            runs.open_run(tmp_path, spine_config(train__steps=steps), str(folder))
    assert runs.read_config(folder) == config
    assert runs.open_run(tmp_path, longer, str(folder)) == (folder, step)
    assert runs.read_config(folder) == longer
    assert (folder / "export-steps-6" / "export.json").is_file()
    assert runs.PRETRAINING.load(str(folder / "config-steps-6.yaml")) == config
    assert not runs.PRETRAINING.is_finished(folder)
    assert runs.find_run(tmp_path, longer, "auto") == (folder, step)
    assert "the export of the shorter run is now" in capsys.readouterr().out


def test_a_damaged_newest_checkpoint_is_told_and_the_older_serves(spine_config, tmp_path, capsys):
    config = spine_config()
    folder = runs.new_run(tmp_path, config)
    older, newer = checkpointed(folder, 2), checkpointed(folder, 4)
    (newer / "state.json").write_text("{")
    assert runs.find_run(tmp_path, config, "auto") == (folder, older)
    assert "step-4/state.json" in capsys.readouterr().err


def test_one_process_at_a_time_trains_in_a_run(spine_config, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "ORPHANS_LAST", 0.0)
    config = spine_config()
    with ExitStack() as held:
        folder, _ = runs.open_run(tmp_path, config, None, held=held)
        for resume in ("auto", str(folder)):
            with pytest.raises(ValueError, match=r"tiny: another process trains in it; wait for it, or end it"):
                runs.open_run(tmp_path, config, resume, held=ExitStack())
        assert runs.open_run(tmp_path, config, None, held=held)[0].name == "tiny-2"
    with ExitStack() as held:
        assert runs.open_run(tmp_path, config, str(folder), held=held) == (folder, None)


def test_a_killed_process_keeps_no_run(spine_config, tmp_path):
    config, parent = spine_config(), os.getpid()
    folder = runs.new_run(tmp_path, config)
    ours, theirs = os.pipe()
    child = os.fork()
    if os.getpid() != parent:
        runs.open_run(tmp_path, config, str(folder), held=ExitStack())
        os.write(theirs, b"x")
        os.kill(os.getpid(), 9)
    os.read(ours, 1)
    os.waitpid(child, 0)
    with ExitStack() as held:
        assert runs.open_run(tmp_path, config, "auto", held=held) == (folder, None)


def test_two_that_take_a_name_at_once_get_two_folders(spine_config, tmp_path, monkeypatch):
    config, free = spine_config(), runs.find_next_free
    monkeypatch.setattr(runs, "find_next_free", lambda path: free(path) if path.exists() else taken(path))

    def taken(path):
        path.mkdir(parents=True)  # by the other one, between look and make
        return path

    assert runs.new_run(tmp_path, config).name == "tiny-2"
