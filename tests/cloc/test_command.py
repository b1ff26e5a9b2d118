import errno
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http
from transformers import AutoConfig

from cloc import command, hub
from cloc.jobs import starting_processes


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("no such thing"), 2, "error: no such thing"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), 2, "error: [Errno 2] No such file: 'a.json'"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 2, "error: the disk is full under runs/a"),
        (OSError(errno.EDQUOT, "Quota exceeded"), 2, "error: the disk is full (Quota exceeded); make room"),
        (MemoryError(), 2, "error: not enough memory"),
        (FloatingPointError("step 3"), 1, "stopped: step 3"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C; try it again"),
        (ValueError("\x1b[2Jgone\x07"), 2, r"error: \x1b[2Jgone\x07"),
        (ValueError("a lone \ud800"), 2, r"error: a lone \ud800"),
        (ValueError("x" * 100_000), 2, "error: " + "x" * 493 + " ... " + "x" * 500),
    ],
)
def test_every_end_is_one_line_and_a_status(error, status, told, capsys):
    assert command.run(raises(error), "try it again") == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_what_is_no_mistake_of_a_user_keeps_its_traceback():
    with pytest.raises(TypeError):
        command.run(raises(TypeError("ours")))


def test_a_status_is_handed_on():
    assert [command.run(lambda status=status: status) for status in (None, 0, 1, 143)] == [0, 0, 1, 143]


def test_letters_of_any_script_stay():
    assert command.printable("größe 猫 😀\tx\n") == "größe 猫 😀\tx\n"


@pytest.fixture
def online(monkeypatch):
    """The hub's library as on a machine that has never asked; its address is a port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{held.getsockname()[1]}")
        monkeypatch.setattr(hub, "getproxies", dict)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield
        set_client_factory(_http.default_client_factory)


def test_a_name_of_the_hub_without_a_network_is_refused_after_one_try(online, monkeypatch):
    tries, connect = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: tries.append(a) or connect(*a, **k))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits before it tries again"))
    hub.fail_fast()
    for _ in range(2):
        with pytest.raises(OSError, match="connect"):
            AutoConfig.from_pretrained("nobody/nothing", trust_remote_code=False)
    assert len(tries) == 1
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_proxy_is_what_has_to_be_reached(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "getproxies", lambda: {"https": f"127.0.0.1:{server.getsockname()[1]}"})
        monkeypatch.setattr(hub, "proxy_bypass", lambda host: False)
        assert hub.is_reached("https://nobody.invalid")
        monkeypatch.setattr(hub, "proxy_bypass", lambda host: True)
        assert not hub.is_reached("https://nobody.invalid", patience=0.5)


def test_processes_that_are_started_leave_ctrl_c_to_their_parent():
    before = signal.getsignal(signal.SIGINT)
    with starting_processes():
        done = subprocess.run(
            [sys.executable, "-c", "import signal; print(signal.getsignal(2).name)"], capture_output=True
        )
    assert done.stdout.decode().strip() == "SIG_IGN"
    assert signal.getsignal(signal.SIGINT) is before
