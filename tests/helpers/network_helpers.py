"""Local addresses for tests of the network."""

from __future__ import annotations

import socket


def closed_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
