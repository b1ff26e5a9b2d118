"""Names of the Hugging Face hub on a machine that does not reach it: known within three seconds, and asked once."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0
"""Seconds in which the hub, or the proxy on the way to it, has to take a connection."""


def fail_fast() -> None:
    """Let the first request to the hub of this process find out whether it is reached; if not, none follows.

    The hub's library tries again five times, for half a minute and for each file. After this it goes on as with
    `HF_HUB_OFFLINE=1`: what lies in its cache is used, the rest is refused at once. Nothing is asked before a name of
    the hub is.
    """
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    make: Callable[[], Any] = _http.default_client_factory

    def client() -> Any:
        if not constants.HF_HUB_OFFLINE and not is_reached(constants.ENDPOINT):
            constants.HF_HUB_OFFLINE = True
            os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that this one starts
            from huggingface_hub.errors import OfflineModeIsEnabled

            raise OfflineModeIsEnabled(f"{constants.ENDPOINT} cannot be reached from this machine")
        return make()

    if not constants.HF_HUB_OFFLINE:
        set_client_factory(client)


def is_reached(url: str, patience: float = PATIENCE) -> bool:
    """Whether the server of an address, or the proxy on the way to it, takes a connection within `patience` seconds."""
    place = urlsplit(url)
    proxy = getproxies().get(place.scheme)
    if proxy and place.hostname and not proxy_bypass(place.hostname):
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    host, port = place.hostname, place.port or (80 if place.scheme == "http" else 443)
    found: list[bool] = []

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=patience).close()
            found.append(True)
        except OSError:
            found.append(False)

    # In a thread, since looking up a name knows no limit of time.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(patience)
    return found == [True]
