"""A small client for shell completion, and for commands that must start fast: the import of redis-py takes too long.

It sends commands in a pipeline and returns the answers as the server sends them (RESP 2). It does not reconnect.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit
from weakref import finalize

Reply = Any
"""bytes, int, None, a list of replies, or a ReplyError."""

Word = str | bytes | int

_CLOSED = "the connection was closed"


class ReplyError(Exception):
    """The error with which the server answered one command."""


class LightClient:
    """One connection. Raises OSError or ValueError if it fails. Timeouts are in seconds."""

    def __init__(
        self,
        url: str,
        timeout: float,
        *,
        read_timeout: float | None = None,
        name: str = "",
        master: str = "mymaster",
        sentinel: Mapping[str, Any] | None = None,
    ):
        """Connect to a redis://, rediss://, unix:// or sentinel:// URL.

        `timeout` is that of connecting, and of reading if `read_timeout` is None. `name` appears in CLIENT LIST.
        `master` is the name that sentinels know; `sentinel` may have the username and password of the sentinels.
        """
        nodes = [urlsplit(part) for part in url.split(";")]
        last, options = nodes[-1], dict(parse_qsl(nodes[-1].query))
        if last.scheme == "sentinel":
            self._open(_connect(_master_address(nodes, master, sentinel or {}, timeout), timeout))
        elif last.scheme == "unix":
            self._open(_connect_unix(unquote(last.path), timeout))
        else:
            host = last.hostname or "localhost"
            plain = _connect((host, last.port or 6379), timeout)
            self._open(_encrypted(plain, host, options) if last.scheme == "rediss" else plain)
        database = options.get("db") or ("" if last.scheme == "unix" else last.path.strip("/"))
        self._socket.settimeout(read_timeout or timeout)
        user, password = (unquote(word) if word else None for word in (nodes[0].username, nodes[0].password))
        self._log_in(user, password or options.get("password"), database, name)

    @classmethod
    def of_socket(cls, connected: socket.socket) -> Self:
        """A client on a connection that is open already, without a login."""
        opened = cls.__new__(cls)
        opened._open(connected)
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self, connected: socket.socket) -> None:
        self._socket, self._input = connected, connected.makefile("rb")
        self._close = finalize(self, _close, self._input, connected)  # also when the client is no longer used

    def __call__(self, *commands: Sequence[Word]) -> list[Reply]:
        """Send all commands, then read all answers."""
        try:
            self._socket.sendall(b"".join(map(_packed, commands)))
            return [self._read() for _ in commands]
        except TimeoutError as error:
            raise TimeoutError("Timeout reading from socket") from error

    def _log_in(self, user: str | None, password: str | None, database: str, name: str) -> None:
        words = [word for word in (user, password) if word]
        commands: list[Sequence[Word]] = [("AUTH", *words)] if password else []
        commands += [("CLIENT", "SETNAME", name)] if name else []
        for answer in self(*commands, ("SELECT", database or "0")):
            if isinstance(answer, ReplyError):
                self.__exit__()
                raise ConnectionError(str(answer))

    def _read(self) -> Reply:
        line = self._input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(_CLOSED)
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self._read_text(int(rest))
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        if kind == b"-":
            return ReplyError(rest.decode(errors="replace"))
        if kind not in (b":", b"+"):
            raise ValueError(f"not an answer of Redis: {line!r}")
        return int(rest) if kind == b":" else rest

    def _read_text(self, length: int) -> bytes:
        text = self._input.read(length + 2)
        if len(text) < length + 2:
            raise ConnectionError(_CLOSED)
        return text[:-2]


def _close(*opened: Any) -> None:
    for each in opened:
        each.close()


def _connect(address: tuple[str, int], timeout: float) -> socket.socket:
    try:
        connected = socket.create_connection(address, timeout)
    except TimeoutError as error:
        raise TimeoutError("Timeout connecting to server") from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _connect_unix(path: str, timeout: float) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(timeout)
    try:
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


def _encrypted(plain: socket.socket, host: str, options: Mapping[str, str]) -> socket.socket:
    """Start TLS with the options that redis-py reads from a URL."""
    import ssl

    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    if options.get("ssl_cert_reqs", "required") in ("none", "CERT_NONE"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif options.get("ssl_check_hostname", "true").lower() in ("false", "no", "0"):
        context.check_hostname = False
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password"))
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _master_address(
    nodes: Sequence[SplitResult], master: str, login: Mapping[str, Any], timeout: float
) -> tuple[str, int]:
    """Ask the sentinels in turn for the address of the master."""
    for node in nodes:
        try:
            address = node.hostname or "127.0.0.1", node.port or 26379
            with LightClient.of_socket(_connect(address, timeout / len(nodes))) as client:
                if login.get("password"):
                    client(("AUTH", *(str(login[key]) for key in ("username", "password") if login.get(key))))
                (found,) = client(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master))
        except OSError:
            continue
        if isinstance(found, list):
            return found[0].decode(), int(found[1])
    raise ConnectionError("no sentinel knows the master")


def _packed(command: Sequence[Word]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        text = word if isinstance(word, bytes) else str(word).encode(errors="surrogateescape")
        parts += (b"$%d\r\n" % len(text), text, b"\r\n")
    return b"".join(parts)
