"""What systemd wants to hear of a service of Type=notify: that it is ready, that it lives, that it ends.

A datagram with a few words to the socket that NOTIFY_SOCKET names, see sd_notify(3). Without it nothing is sent.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._path = env.get("NOTIFY_SOCKET", "")
        self._has_watchdog = bool(env.get("WATCHDOG_USEC"))
        self._ready, self._status = False, ""

    def alive(self, status: str) -> None:
        """Ready, the first time; with a watchdog, alive every time; the status where it is another one."""
        words = [] if self._ready else ["READY=1"]
        words += ["WATCHDOG=1"] if self._has_watchdog else []
        words += [f"STATUS={status}"] if status != self._status else []
        self._ready, self._status = True, status
        self._send(words)

    def stopping(self) -> None:
        self._send(["STOPPING=1"])

    def _send(self, words: list[str]) -> None:
        if not self._path or not words:
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto("\n".join(words).encode(), address)
