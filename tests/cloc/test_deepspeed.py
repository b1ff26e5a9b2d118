"""Two ranks under DeepSpeed's launcher against one process on plain torch, on the same global batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 20


@pytest.fixture
def train(spine_raw, tmp_path):
    """Trains in subprocesses, as a user does; returns the lines of metrics.jsonl."""

    def run(name, command, **changes):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(spine_raw(run__name=name, train__steps=STEPS, **changes)))
        binaries = Path(sys.executable).parent
        env = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        call = [*command, str(REPOSITORY / "cloc/pretrain.py"), "--config", str(file), "--runs", str(tmp_path / "runs")]
        done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]

    return run


@pytest.mark.multiprocess
def test_zero_0_1_and_2_on_two_ranks_give_the_losses_of_one_process(train, tmp_path):
    deepspeed = str(Path(sys.executable).parent / "deepspeed")
    one = train("one", [sys.executable])
    for stage, port in ((0, 29611), (1, 29612), (2, 29613)):
        command = [deepspeed, "--master_port", str(port + os.getpid() % 5000), "--num_gpus", "2"]
        two = train(f"zero{stage}", command, train__deepspeed=f"configs/deepspeed/zero{stage}.json")
        assert len(one) == len(two) == STEPS
        for a, b in zip(one, two, strict=True):
            for name in ("loss", "image_text", "region_text", "grounding", "gradient_norm"):
                assert b[name] == pytest.approx(a[name], rel=1e-4), (stage, a["step"], name)
        assert (tmp_path / "runs" / f"zero{stage}" / "export" / "export.json").is_file()
