"""A TCP proxy on loopback between clients and a server, whose network can be made to fail.

A connection whose network has failed stays so: as behind a router that went away, neither side hears of the other, nor
of its FIN, and only a new connection works after `heal`.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum
from threading import Thread
from types import TracebackType
from typing import Any, Self


class Way(Enum):
    """A direction through the proxy, seen from the client."""

    REQUESTS = "requests"
    REPLIES = "replies"


_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST instead of FIN."""


class Proxy:
    """Forwards connections to 127.0.0.1:`port`. `seconds` of `delay` are those of one way.

    The faults are set from any thread; each holds for the connections of now and, until `heal`, for new ones.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._swallowed: frozenset[Way] = frozenset()
        self._trap: _Trap | None = None
        self.delay = 0.0
        self.accepted = 0
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # -- faults

    def cut(self, *ways: Way) -> None:
        """Swallow all bytes and FINs of these directions; without any, of both: a half-open connection.

        New connections are accepted and never answered.
        """

        def change() -> None:
            self._swallowed = frozenset(ways or Way)
            for link in self._links:
                link.swallowed |= self._swallowed

        self._run(change)

    def heal(self) -> None:
        """Let new connections pass. Those that were cut stay dead."""

        def change() -> None:
            self._swallowed, self._trap, self.delay = frozenset(), None, 0.0

        self._run(change)

    def reset(self) -> None:
        """Reset all connections of now."""

        def change() -> None:
            for link in list(self._links):
                link.reset()

        self._run(change)

    def lose_reply(self, request: bytes, *, after: int | None = None, times: int = 1) -> None:
        """Lose the replies from the next request that contains these bytes on, which the server receives.

        With `after`, that many bytes of the reply pass and the connection is reset; else it is silent for ever.
        """

        def change() -> None:
            self._trap = _Trap(request, after, times)

        self._run(change)

    @property
    def is_sprung(self) -> bool:
        """Whether the replies of `lose_reply` have been lost."""
        return self._trap is not None and self._trap.times == 0

    # -- the loop

    def _run(self, change: Callable[[], Any]) -> None:
        async def run() -> None:
            change()

        self._call(run())

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=512)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:  # the server is down: refuse as it would
            _reset(writer)
            return
        link = _Link(self, (reader, writer), server)
        self._links.add(link)
        try:
            await link.run()
        except asyncio.CancelledError:  # by `close`; raised, asyncio would report it
            pass
        finally:
            self._links.discard(link)
            for ended in (writer, server[1]):
                ended.transport.abort()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for link in list(self._links):
                link.reset()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._server.wait_closed()
            await asyncio.sleep(0)  # the transports close their sockets in the next turn of the loop

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Trap:
    """Waits for a request that contains `request`; `after`: see `Proxy.lose_reply`."""

    def __init__(self, request: bytes, after: int | None, times: int) -> None:
        self.request, self.after, self.times = request, after, times


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: _Streams, server: _Streams) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self.swallowed = proxy._swallowed
        self._passes: int | None = None  # bytes of the reply until the reset
        self._tail = b""

    async def run(self) -> None:
        requests = self._pump(Way.REQUESTS, self._client[0], self._server[1])
        replies = self._pump(Way.REPLIES, self._server[0], self._client[1])
        await asyncio.gather(requests, replies)

    async def _pump(self, way: Way, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await source.read(1 << 16)
            except OSError:
                data = b""
            if way is Way.REQUESTS:
                self._look_at(data)
            elif self._passes is not None and way is Way.REPLIES:
                target.write(data[: self._passes])
                loop.call_soon(self.reset)
                return
            if way not in self.swallowed:
                loop.call_later(self._proxy.delay, _forward, target, data)
            if not data:
                return

    def _look_at(self, data: bytes) -> None:
        trap = self._proxy._trap
        if trap is None or not trap.times:
            return
        seen, self._tail = self._tail + data, (self._tail + data)[-len(trap.request) :]
        if trap.request in seen:
            trap.times -= 1
            if trap.after is None:
                self.swallowed |= {Way.REPLIES}
            else:
                self._passes = trap.after

    def reset(self) -> None:
        _reset(self._client[1])
        self._server[1].close()


def _forward(target: asyncio.StreamWriter, data: bytes) -> None:
    if target.is_closing():
        return
    if data:
        target.write(data)
    elif target.can_write_eof():
        target.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
