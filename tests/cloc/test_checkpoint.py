import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cloc.train import checkpoint, engine
from cloc.train.optim import make_adamw, parameter_groups
from cloc.train.stepper import TorchStepper


def make(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    return model, make_adamw(parameter_groups(model, 0.1, {}), 0.1, (0.9, 0.98), 1e-6)


def steps(model, optimizer, count, first=0):
    for step in range(first, first + count):
        torch.manual_seed(step)
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def write(folder, step, keep=2, model=None, optimizer=None):
    if model is None:
        model, optimizer = make()
    temporary = checkpoint.begin(folder, step)
    checkpoint.save_tensors(temporary, model, optimizer)
    return checkpoint.finish(temporary, {"step": step, "world": 1}, keep)


def test_training_goes_on_bit_for_bit(tmp_path):
    model, optimizer = make()
    steps(model, optimizer, 4)
    saved = write(tmp_path, 4, model=model, optimizer=optimizer)
    steps(model, optimizer, 3, first=4)

    again, its_optimizer = make(seed=1)
    steps(again, its_optimizer, 1)
    checkpoint.load_tensors(saved, again, its_optimizer)
    steps(again, its_optimizer, 3, first=4)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_the_newest_are_kept_and_found_by_number(tmp_path):
    for step in (2, 9, 10, 100):
        assert write(tmp_path, step) == tmp_path / f"step-{step}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-100"]
    assert checkpoint.newest(tmp_path) == tmp_path / "step-100"
    assert checkpoint.read_state(tmp_path / "step-10") == {"step": 10, "world": 1}


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    assert checkpoint.newest(tmp_path / "nothing") is None
    write(tmp_path, 3)
    checkpoint.begin(tmp_path, 4)  # killed while writing
    assert checkpoint.newest(tmp_path) == tmp_path / "step-3"


def cut(file):
    file.write_bytes(file.read_bytes()[:-8])


def turn(file):
    """One byte of the last tensor is another; length and header are as they were."""
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")


def says(**changes):
    def change(file):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DAMAGE = {
    "cut weights": ("model.safetensors", cut, "it was cut or changed"),
    "cut moments": ("optimizer.safetensors", cut, "it was cut or changed"),
    "another byte": ("model.safetensors", turn, r"another SHA-256"),
    "no weights": ("model.safetensors", Path.unlink, "missing"),
    "empty moments": ("optimizer.safetensors", lambda f: f.write_bytes(b""), "got 0"),
    "no state": ("state.json", Path.unlink, "found no file"),
    "half a state": ("state.json", lambda f: f.write_text('{"step": 1'), "no JSON"),
    "a list": ("state.json", lambda f: f.write_text("[1]"), "got a JSON list"),
    "a deep state": ("state.json", lambda f: f.write_text("[" * 10_000), "lists in lists"),
    "another step": ("state.json", says(step=7), "expected step 9, got 7"),
    "a step in words": ("state.json", says(step="9"), "step: expected a whole number"),
    "a huge step": ("state.json", says(step=10**40), "step: expected a whole number"),
    "no number of threads": ("state.json", says(threads=0), "threads: expected a whole number from 1 to 4,096"),
    "files of another kind": ("state.json", says(files=[1]), "files: expected bytes and sha256"),
    "sizes in words": (
        "state.json",
        says(files={"model.safetensors": {"bytes": "9", "sha256": ""}}),
        "files: expected",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_an_older_whole_one_serves(name, tmp_path):
    file, damage, told = DAMAGE[name]
    write(tmp_path, 3)
    damage(write(tmp_path, 9) / file)
    said = []
    assert checkpoint.newest(tmp_path, said.append) == tmp_path / "step-3"
    (line,) = said
    assert re.search(rf"passed over: .*step-9/{re.escape(file)}: .*{told}.*; step-3 is whole and serves", line)
    shutil.rmtree(tmp_path / "step-3")
    with pytest.raises(ValueError, match=rf"no whole checkpoint among 1 \(the newest: .*{told}"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("name", ["step-²", "step-", "step--1", "step-9999999999999999999", "step-4.old"])
def test_folders_of_other_names_are_no_checkpoints(name, tmp_path):
    (tmp_path / name).mkdir()
    assert checkpoint.newest(tmp_path) is None
    write(tmp_path, 3)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-3"


def test_one_of_an_earlier_version_has_no_hashes_and_is_whole(tmp_path):
    folder = write(tmp_path, 3)
    (folder / "state.json").write_text('{"step": 3, "threads": 1, "world": 1}')
    assert checkpoint.newest(tmp_path) == folder
    cut(folder / "model.safetensors")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        checkpoint.newest(tmp_path)


def test_leftovers_of_a_killed_write_are_thrown_away(tmp_path):
    (checkpoint.begin(tmp_path, 5) / "model.safetensors").write_bytes(b"half")
    assert not list(checkpoint.begin(tmp_path, 5).iterdir())


def test_the_same_step_is_written_anew(tmp_path):
    write(tmp_path, 5)
    model, optimizer = make(seed=3)
    write(tmp_path, 5, model=model, optimizer=optimizer)
    assert torch.equal(load_file(tmp_path / "step-5" / "model.safetensors")["0.weight"], model[0].weight)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    folder = write(tmp_path, 1)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "2.bias"}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"the checkpoint and the model differ in 1 weights \(first: 2\.bias\)"):
        checkpoint.load_tensors(folder, *make())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda w: {**w, "0.weight": w["0.weight"].T.contiguous()},
            r"F32 of shape \[4, 3\], got F32 of shape \[3, 4\]",
        ),
        (lambda w: {**w, "0.weight": w["0.weight"].to(torch.float16)}, r"expected F32 of shape .*, got F16"),
        (lambda w: {**w, "0.weight": torch.zeros(10**6)}, r"got F32 of shape \[1000000\]"),
    ],
)
def test_weights_of_another_shape_or_type_are_refused_before_any_is_loaded(change, told, tmp_path):
    folder, (model, optimizer) = write(tmp_path, 1), make(seed=1)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=rf"model\.safetensors: 0\.weight: .*{told}"):
        checkpoint.load_tensors(folder, model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"0.weight/exp_avg": torch.zeros(3, 4)}, r"expected floats of shape \[4, 3\], got F32 of shape \[3, 4\]"),
        ({"0.weight/exp_avg": torch.zeros(4, 3, dtype=torch.int64)}, "got I64"),
        ({"0.weight/hooks": torch.zeros(4, 3)}, "0.weight/hooks: expected floats"),
        ({"0.weight/step": torch.zeros(2)}, r"expected floats of shape \[\]"),
        ({"0.weight/step": torch.tensor(float("nan"))}, "expected a count of steps, got nan"),
        ({"0.weight/exp_avg": None}, "exp_avg is missing"),
    ],
)
def test_moments_that_are_none_of_adams_are_refused(changes, told, tmp_path):
    model, optimizer = make()
    steps(model, optimizer, 1)
    folder = write(tmp_path, 1, model=model, optimizer=optimizer)
    there = load_file(folder / "optimizer.safetensors") | changes
    save_file({k: v for k, v in there.items() if v is not None}, folder / "optimizer.safetensors")
    with pytest.raises(ValueError, match=told):
        checkpoint.load_tensors(folder, *make())


def test_a_full_disk_is_an_error_of_the_system_and_frees_what_it_took(tmp_path, monkeypatch):
    def full(tensors, file):
        Path(file).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    model, optimizer = make()
    stepper = TorchStepper(model, optimizer, 1, 1.0, False)
    plan = engine.Plan(tmp_path, 5, 0, 1, 0, lambda step: 0.0, 1, 2, {"threads": 1, "world": 1})
    with pytest.raises(OSError, match="No space left") as raised:
        engine.save(stepper, plan, 1)
    assert raised.value.errno == errno.ENOSPC
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_moments_without_a_parameter_are_refused(tmp_path):
    folder = write(tmp_path, 1)
    save_file({"other.weight/exp_avg": torch.zeros(1)}, folder / "optimizer.safetensors")
    with pytest.raises(ValueError, match=r"state for 'other\.weight' has no parameter in the model"):
        checkpoint.load_tensors(folder, *make())
