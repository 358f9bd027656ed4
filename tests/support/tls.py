"""TLS in front of a server that has none: a proxy on loopback that ends it."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

import trustme


def client_options(ca: trustme.CA, directory: Path, signer: trustme.CA | None = None) -> dict[str, str]:
    """The options of a URL for a server of `ca`, with a certificate by `signer` (default: `ca`)."""
    ca_file, certificate, key = (directory / name for name in ("ca.pem", "client.pem", "client.key"))
    ca.cert_pem.write_to_path(str(ca_file))
    issued = (signer or ca).issue_cert("client@example.org")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    options = {"ssl_ca_certs": ca_file, "ssl_certfile": certificate, "ssl_keyfile": key}
    return {"ssl_cert_reqs": "required", **{name: str(path) for name, path in options.items()}}


class TlsProxy:
    """A context manager; `port` is the proxy's. Clients must show a certificate signed by `ca`."""

    def __init__(self, ca: trustme.CA, target: int) -> None:
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(self._context)
        ca.issue_cert("127.0.0.1", "localhost").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as client:
            try:
                client.do_handshake()
            except OSError:
                _refuse(client)
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                back = Thread(target=_forward, args=(server, client), daemon=True)
                back.start()
                _forward(client, server)
                back.join()


def _refuse(client: ssl.SSLSocket) -> None:
    """Close a connection whose handshake failed, after what the client sent: a reset would destroy the alert."""
    with suppress(OSError):
        socket.socket.shutdown(client, socket.SHUT_WR)
        while socket.socket.recv(client, 65536):
            pass


def _forward(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
