"""The folder of a tuning run: what cannot be made or continued is one sentence."""

import pytest

from mllm_bridge.tuning.folders import check_resume, open_run
from mllm_bridge.tuning.settings import load_settings


def test_other_conditions_than_the_checkpoints_are_refused():
    check_resume({"deepspeed": False, "world": 2}, 1, deepspeed=False)  # plain torch: any number of ranks
    check_resume({"deepspeed": True, "world": 2}, 2, deepspeed=True)
    with pytest.raises(ValueError, match="is from DeepSpeed, this run is plain torch; start it as before"):
        check_resume({"deepspeed": True, "world": 1}, 1, deepspeed=False)
    with pytest.raises(ValueError, match="from plain torch, this run is DeepSpeed"):
        check_resume({"deepspeed": False, "world": 1}, 1, deepspeed=True)
    with pytest.raises(ValueError, match="DeepSpeed's checkpoint is from 2 ranks, this run has 4"):
        check_resume({"deepspeed": True, "world": 2}, 4, deepspeed=True)


def test_a_folder_of_runs_below_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    config = load_settings("configs/bridge/tiny.yaml")
    with pytest.raises(ValueError, match=r"--runs .*file/runs: the folder of the run cannot be made or read \("):
        open_run(tmp_path / "file" / "runs", config, None)
