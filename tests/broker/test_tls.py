"""`rediss://` with certificates: what is accepted, and what a refusal says."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from morag_queue.broker.light_client import LightClient
from morag_queue.broker.redis import RedisBroker
from morag_queue.cli import main
from morag_queue.errors import BrokerUnreachable, ExitStatus
from morag_queue.settings import BrokerSettings, Settings
from tests.support.tls import TlsProxy

Url = Callable[..., str]


@pytest.fixture
def url(valkey: str, tmp_path: Path) -> Iterator[Url]:
    """Return a function for the URL of a server with TLS, which asks for a certificate."""
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other-ca.pem"))
    for name, signer in (("client", ca), ("stranger", other)):
        certificate = signer.issue_cert("client@example.org")
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))

    def build(ca_file: str = "ca.pem", certificate: str = "client", host: str = "127.0.0.1", **more: str) -> str:
        options = {"ssl_ca_certs": str(tmp_path / ca_file), **more}
        if certificate:
            options["ssl_certfile"] = str(tmp_path / f"{certificate}.pem")
            options["ssl_keyfile"] = str(tmp_path / f"{certificate}.key")
        return f"rediss://{host}:{proxy.port}/0?{urlencode(options)}"

    port = urlsplit(valkey).port
    assert port is not None
    with TlsProxy(ca, port) as proxy:
        yield build


REFUSED = [
    ({"ca_file": "other-ca.pem"}, "CERTIFICATE_VERIFY_FAILED"),
    ({"certificate": ""}, "CERTIFICATE_REQUIRED"),
    ({"certificate": "stranger"}, "UNKNOWN_CA"),
]


def test_a_client_certificate_opens_the_broker(url: Url) -> None:
    assert RedisBroker(Settings(redis_url=url())).now() > 0
    assert RedisBroker(Settings(redis_url=url(host="localhost"))).now() > 0
    with LightClient(url(), 5) as light:
        assert light(("PING",)) == [b"PONG"]


@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_a_wrong_certificate_is_refused_with_a_remedy(given: dict[str, str], reason: str, url: Url) -> None:
    with pytest.raises(BrokerUnreachable, match="no TLS connection to the broker rediss://") as refusal:
        RedisBroker(Settings(redis_url=url(**given))).now()
    assert "and in the URL ssl_ca_certs (who signed the server's certificate)" in str(refusal.value)
    assert reason in str(refusal.value).upper().replace(" ", "_")


@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_the_light_client_refuses_it_too(given: dict[str, str], reason: str, url: Url) -> None:
    with pytest.raises(OSError, match="SSL") as refusal:
        LightClient(url(**given), 5)
    assert reason in str(refusal.value).upper().replace(" ", "_")


def test_a_server_without_tls_is_refused(valkey: str) -> None:
    url = f"rediss://127.0.0.1:{urlsplit(valkey).port}/0?ssl_cert_reqs=none"
    settings = Settings(redis_url=url, broker=BrokerSettings(connect_timeout_seconds=0.5))
    with pytest.raises(BrokerUnreachable, match=r"is --redis-url right\? Does its port speak TLS\?$"):
        RedisBroker(settings).now()


@pytest.mark.parametrize("line", ["stats", "tasks", "cordon cpu-1"])
def test_a_command_exits_with_69(line: str, url: Url, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line.split(), "--redis-url", url(ca_file="other-ca.pem")]) == ExitStatus.UNREACHABLE
    assert "no TLS connection to " in capsys.readouterr().err
