"""The folder of a tuning run: what cannot be made or continued is one sentence."""

import pytest

from mllm_bridge.tune.settings import load_settings
from mllm_bridge.tune.sources import open_run


@pytest.mark.parametrize("named", [True, False], ids=["by-name", "auto"])
def test_a_run_is_found_under_another_zero_stage_and_under_no_other_rate(tmp_path, named):
    """How a run is spread over machines is no part of what it is."""
    one, other, faster = (
        load_settings("configs/bridge/tiny.yaml", overrides)
        for overrides in ([], ["train.deepspeed=configs/deepspeed/zero2.json"], ["optim.lr=0.5"])
    )
    made, _ = open_run(tmp_path, one, None)
    asked = str(made) if named else "auto"
    assert open_run(tmp_path, other, asked) == (made, None)
    with pytest.raises(ValueError, match="config differs in optim" if named else "no unfinished run of this config"):
        open_run(tmp_path, faster, asked)


def test_a_folder_of_runs_below_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    config = load_settings("configs/bridge/tiny.yaml")
    with pytest.raises(ValueError, match=r"--runs .*file/runs: the folder of the run cannot be made or read \("):
        open_run(tmp_path / "file" / "runs", config, None)
