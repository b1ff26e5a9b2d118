import pytest
import torch
from safetensors.torch import load_file, save_file

from cloc import checkpoint
from cloc.optim import make_adamw, parameter_groups


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
    (tmp_path / "step-9").mkdir()  # no state: not ours, or not whole
    assert checkpoint.newest(tmp_path) == tmp_path / "step-3"


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


def test_moments_without_a_parameter_are_refused(tmp_path):
    folder = write(tmp_path, 1)
    save_file({"other.weight/exp_avg": torch.zeros(1)}, folder / "optimizer.safetensors")
    with pytest.raises(ValueError, match=r"state for 'other\.weight' has no parameter in the model"):
        checkpoint.load_tensors(folder, *make())
