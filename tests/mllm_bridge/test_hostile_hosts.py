"""Hosts from somebody else: links, sizes, headers and interruptions; one line, nothing copied, nothing left behind."""

import json
import os
import shutil
import signal

import pytest

from cloc.disk import atomic_dir
from mllm_bridge.swap import command as swap
from mllm_bridge.weights import folders
from mllm_bridge.weights.tensorfile import read_header


@pytest.fixture
def host(host_folder, tmp_path):
    return shutil.copytree(host_folder, tmp_path / "host")


@pytest.fixture
def swapped(clip_folder, tmp_path, capsys):
    """Swaps into a host; gives the status and the lines of stderr."""

    def run(host, out="out"):
        capsys.readouterr()
        code = swap.main(["--mllm", str(host), "--encoder", str(clip_folder), "--out", str(tmp_path / out)])
        return code, capsys.readouterr().err.splitlines()

    return run


def one_line(result, said):
    code, lines = result
    assert code == 2
    assert len(lines) == 1, lines
    assert said in lines[0]


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "../secret.txt", "loop.txt", "gone.txt", "/dev/zero"])
def test_links_that_leave_the_host_are_refused(host, swapped, tmp_path, target):
    (tmp_path / "secret.txt").write_text("secret")
    (host / "loop.txt").symlink_to(target)
    one_line(swapped(host), "is a link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "secret.txt"]


def test_the_hubs_own_links_and_links_inside_are_its_files(host, swapped, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(host.iterdir())):
        path.rename(blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    (snapshot / "notes.txt").symlink_to("config.json")
    assert swapped(snapshot)[0] == 0
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    (blobs / "secret").symlink_to("/etc/passwd")
    (snapshot / "more.txt").symlink_to("../../blobs/secret")
    one_line(swapped(snapshot, "again"), "is a link")


def test_a_folder_that_only_looks_like_the_hubs(host, swapped, tmp_path):
    fake = tmp_path / "fake" / "snapshots" / "0"
    fake.parent.mkdir(parents=True)
    shutil.move(host, fake)
    (tmp_path / "fake" / "blobs").symlink_to("/etc")
    (fake / "notes.txt").symlink_to("../../blobs/passwd")
    one_line(swapped(fake), "is a link")


def test_a_pipe_and_a_huge_file(host, swapped, monkeypatch):
    os.mkfifo(host / "notes.txt")
    assert swapped(host)[0] == 0
    monkeypatch.setattr(folders, "LARGEST_PASSED_ON", 10)
    one_line(swapped(host, "again"), "move it out of the folder")


@pytest.mark.parametrize(
    "fields",
    [
        {"text_config__num_hidden_layers": 10**7},
        {"text_config__hidden_size": 10**9},
        {"text_config__vocab_size": 10**12},
        {"text_config__hidden_size": "32"},
        {"text_config__hidden_size": -1},
        {"text_config__hidden_size": True},
        {"text_config__hidden_size": 3.5},
        {"text_config__hidden_size": []},
        {"text_config__num_attention_heads": 7},
        {"text_config__num_attention_heads": 0},
        {"vision_config": []},
        {"vision_config": "x"},
        {"text_config": 3},
        {"text_config": None},
        {"vision_config__num_hidden_layers": 10**7},
        {"vision_feature_layer": "x"},
        {"vision_feature_layer": [["x"]]},
        {"vision_feature_layer": {}},
        {"vision_feature_layer": 1.5},
        {"vision_feature_layer": 99},
        {"vision_feature_select_strategy": 7},
        {"vision_feature_select_strategy": "other"},
        {"image_token_index": "x"},
        {"projector_hidden_act": "nothing"},
        {"multimodal_projector_bias": "x"},
        {"text_config__model_type": "nothing"},
        {"text_config__rope_parameters": 7},
        {"text_config__hidden_act": 5},
        {"dtype": "nothing"},
        {"auto_map": 5},
        {"architectures": 5},
    ],
    ids=str,
)
def test_a_hostile_config_is_one_line(host, swapped, fields, edit_json):
    edit_json(host / "config.json", **fields)
    code, lines = swapped(host)
    assert code in (0, 2)
    assert code == 0 or lines[0].startswith("error: ")
    assert "Traceback" not in "".join(lines)
    assert len(lines) < 2 or "checks failed" in lines[0]
    if code:
        assert [path.name for path in host.parent.iterdir()] == ["host"]


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"num_hidden_layers": 10**7}),
        ("config.json", {"hidden_size": 10**9}),
        ("config.json", {"image_size": [10**6, 10**6]}),
        ("config.json", {"num_hidden_layers": "2"}),
        ("config.json", {"patch_size": 0}),
        ("preprocessor_config.json", {"size": {"shortest_edge": 10**7}}),
        ("preprocessor_config.json", {"crop_size": {"height": 10**6, "width": 10**6}}),
        ("preprocessor_config.json", {"size": 10**6}),
        ("preprocessor_config.json", {"image_mean": ["a"]}),
    ],
    ids=str,
)
def test_a_hostile_encoder_is_one_line(host_folder, clip_folder, tmp_path, capsys, file, fields):
    tower = shutil.copytree(clip_folder, tmp_path / "tower")
    told = json.loads((tower / file).read_text())
    (tower / file).write_text(json.dumps(told | fields))
    capsys.readouterr()
    code = swap.main(["--mllm", str(host_folder), "--encoder", str(tower), "--out", str(tmp_path / "out")])
    one_line((code, capsys.readouterr().err.splitlines()), "encoder")
    assert not (tmp_path / "out").exists()


def header(**entries):
    told = json.dumps(entries).encode()
    return len(told).to_bytes(8, "little") + told


X = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        header(x={**X, "dtype": 7}) + b"1234",
        header(x={**X, "dtype": ["F32"]}) + b"1234",
        header(x={**X, "shape": "1"}) + b"1234",
        header(x={**X, "shape": [-1]}) + b"1234",
        header(x={**X, "shape": [True]}) + b"1234",
        header(x={**X, "shape": [2**62, 2**62]}) + b"1234",
        header(x={**X, "shape": [0] * 1000, "data_offsets": [0, 0]}),
        header(x={**X, "data_offsets": [4, 0]}) + b"1234",
        header(x={**X, "data_offsets": [-4, 0]}) + b"1234",
        header(x={**X, "data_offsets": [0.0, 4.0]}) + b"1234",
        header(x={**X, "data_offsets": [0, 2**70]}) + b"1234",
        header(x={**X, "data_offsets": [0, 4, 8]}) + b"1234",
        header(x={**X, "data_offsets": {}}) + b"1234",
        header(x=X, y=X) + b"1234",
        header(x=X, y={**X, "data_offsets": [2, 6]}) + b"123456",
        header(x=X, y={**X, "data_offsets": [8, 12]}) + b"1" * 12,
        header(x=X) + b"12345678",
        header(x=5) + b"1234",
        header(x=None) + b"1234",
        header(__metadata__=5, x=X) + b"1234",
        header(__metadata__={"a": 5}, x=X) + b"1234",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (100_000).to_bytes(8, "little") + b'{"a":' * 20_000,
        (6).to_bytes(8, "little") + b'"\\ud8"',
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_hostile_header_is_one_line(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read as safetensors") as caught:
        read_header(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_ctrl_c_and_a_full_disk_leave_nothing(host, swapped, tmp_path, monkeypatch):
    for error, status, said in (
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (OSError(28, "No space left on device", "x"), 2, "the disk is full"),
    ):

        def fail(*given, error=error, **how):
            raise error

        monkeypatch.setattr("mllm_bridge.swap.command.verify", fail)
        code, lines = swapped(host)
        assert code == status
        assert said in lines[-1]
        assert [path.name for path in tmp_path.iterdir()] == ["host"]


def test_what_a_killed_swap_left_goes_with_the_next(tmp_path):
    out = tmp_path / "out"
    child = os.fork()
    if not child:
        with atomic_dir(out) as folder:
            (folder / "x").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.unfinished-")
    with atomic_dir(out):
        assert not left.exists()


def test_two_at_once_into_one_folder(tmp_path):
    out = tmp_path / "out"

    def race():
        with atomic_dir(out):
            out.mkdir()
            (out / "theirs").write_text("x")

    with pytest.raises(ValueError, match="appeared meanwhile"):
        race()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_result_inside_what_is_read_is_refused(host, clip_folder, capsys):
    for inside in (host / "out", host, clip_folder / "deep" / "out", host / ".." / host.name / "out"):
        capsys.readouterr()
        assert swap.main(["--mllm", str(host), "--encoder", str(clip_folder), "--out", str(inside)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "lies in" in line or "is not empty" in line
    assert not (host / "out").exists()


def test_a_result_inside_the_export_of_the_encoder_is_refused(runs, host_folder, capsys):
    export = next(runs.glob("*/export"))
    capsys.readouterr()
    assert swap.main(["--mllm", str(host_folder), "--encoder", str(export), "--out", str(export / "in")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lies in" in line
    assert not (export / "in").exists()
