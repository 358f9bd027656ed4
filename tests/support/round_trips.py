"""Count the round trips of a client: a proxy in front of a server that records what is sent and answered.

    with CountingProxy(port) as proxy:
        client = redis.Redis.from_url(proxy.url)
        ...
        proxy.round_trips()

A round trip is everything that one connection sends before the first byte of the answer, and that answer. The commands
of a new connection (HELLO, CLIENT SETNAME, …) are left out.
"""

import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files
from threading import Thread
from types import TracebackType
from typing import Self

from morag_queue.broker import scripts

_CONNECTING = {
    *("auth", "hello", "select"),
    *(f"client {word}" for word in ("setname", "setinfo", "tracking", "maint_notifications")),
}
"""Commands that redis-py and the claim send once on each connection."""

_TWO_WORDS = {"client", "script", "config"}


@dataclass(slots=True)
class RoundTrip:
    """What one connection sent until it was answered: the commands, scripts by their name, and the bytes both ways."""

    commands: list[str] = field(default_factory=list)
    sent: int = 0
    received: int = 0


class CountingProxy:
    """A context manager; `url` is that of the proxy. Answers are recorded before the client receives them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._all: list[RoundTrip] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closer, self._closed = socket.socketpair()
        self._thread = Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def round_trips(self) -> list[RoundTrip]:
        """Return the round trips since the last call, in the order in which they began."""
        made, self._all = self._all, []
        return [trip for trip in made if trip.commands and not _CONNECTING.issuperset(trip.commands)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closer.close()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._closed:
            selector.register(self._listener, selectors.EVENT_READ, lambda: self._accept(selector))
            selector.register(self._closed, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._closed:
                        for open_key in list(selector.get_map().values()):
                            open_key.fileobj.close()  # type: ignore[union-attr]
                        return
                    key.data()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        counted = _Connection(self._all_trips)
        for source, target, record in ((client, server, counted.sent), (server, client, counted.received)):
            selector.register(
                source, selectors.EVENT_READ, lambda s=source, t=target, r=record: _forward(selector, s, t, r)
            )

    def _all_trips(self) -> list[RoundTrip]:
        return self._all


def _forward(
    selector: selectors.BaseSelector, source: socket.socket, target: socket.socket, record: Callable[[bytes], None]
) -> None:
    data = b""
    with suppress(OSError):
        data = source.recv(1 << 20)
    if data:
        record(data)
        with suppress(OSError):
            target.sendall(data)
        return
    for end in (source, target):
        with suppress(KeyError, ValueError):  # the other direction may have closed both
            selector.unregister(end)
        end.close()


class _Connection:
    """Divides the bytes of one connection into round trips."""

    def __init__(self, trips: Callable[[], list[RoundTrip]]) -> None:
        self._trips, self._rest = trips, b""
        self._trip: RoundTrip | None = None

    def sent(self, data: bytes) -> None:
        if self._trip is None or self._trip.received:
            self._trip = RoundTrip()
            self._trips().append(self._trip)
        self._trip.sent += len(data)
        commands, self._rest = _split(self._rest + data)
        self._trip.commands += map(_name, commands)

    def received(self, data: bytes) -> None:
        if self._trip is not None:
            self._trip.received += len(data)


def _split(data: bytes) -> tuple[list[list[bytes]], bytes]:
    """The whole commands at the start of the data, as lists of words, and what follows them."""
    commands = []
    start = 0
    while (end := _command_end(data, start)) is not None:
        commands.append(list(_words(data, start)))
        start = end
    return commands, data[start:]


def _command_end(data: bytes, start: int) -> int | None:
    """Where a command ends; None if it is incomplete."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    place = line_end + 2
    for _ in range(int(data[start + 1 : line_end])):
        line_end = data.find(b"\r\n", place)
        if line_end < 0:
            return None
        place = line_end + 2 + int(data[place + 1 : line_end]) + 2
    return place if place <= len(data) else None


def _words(data: bytes, start: int) -> Iterator[bytes]:
    line_end = data.find(b"\r\n", start)
    count, place = int(data[start + 1 : line_end]), line_end + 2
    for _ in range(count):
        line_end = data.find(b"\r\n", place)
        size = int(data[place + 1 : line_end])
        yield data[line_end + 2 : line_end + 2 + size]
        place = line_end + 2 + size + 2


def _name(words: list[bytes]) -> str:
    """The command in lower case, with its second word where that is a part of its name; a script by its name."""
    command = words[0].decode().lower()
    if command == "evalsha":
        return script_names().get(words[1].decode(), command)
    if command == "eval":
        return script_names().get(sha1(words[1], usedforsecurity=False).hexdigest(), command)
    return f"{command} {words[1].decode().lower()}" if command in _TWO_WORDS else command


@cache
def script_names() -> dict[str, str]:
    """The names of our scripts by their digests."""
    folder = files(scripts.__package__).joinpath("lua")
    names = [path.name.removesuffix(".lua") for path in folder.iterdir() if path.name.endswith(".lua")]
    return {scripts.sha(name): name for name in names}
