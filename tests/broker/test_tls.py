"""`rediss://` with certificates: what is accepted, and what a refusal says."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from morag_queue.broker.light_client import LightClient
from morag_queue.broker.redis import RedisBroker
from morag_queue.cli import main
from morag_queue.errors import BrokerUnreachable, ExitStatus
from morag_queue.settings import BrokerSettings, Settings
from tests.support.tls import TlsProxy, client_options

Url = Callable[..., str]


@pytest.fixture
def url(valkey: str, tmp_path: Path) -> Iterator[Url]:
    """Return a function for the URL of a server with TLS, which asks for a certificate."""
    ca, other = trustme.CA(), trustme.CA()

    def build(host: str = "127.0.0.1", *, knows_ca: bool = True, shows: str = "certificate") -> str:
        options = client_options(ca if knows_ca else other, tmp_path, other if shows == "foreign" else ca)
        if shows == "none":
            del options["ssl_certfile"], options["ssl_keyfile"]
        return f"rediss://{host}:{proxy.port}/0?{urlencode(options)}"

    port = urlsplit(valkey).port
    assert port is not None
    with TlsProxy(ca, port) as proxy:
        yield build


REFUSED = [
    ({"knows_ca": False}, "CERTIFICATE_VERIFY_FAILED"),
    ({"shows": "none"}, "CERTIFICATE_REQUIRED"),
    ({"shows": "foreign"}, "UNKNOWN_CA"),
]


def test_a_client_certificate_opens_the_broker(url: Url) -> None:
    assert RedisBroker(Settings(redis_url=url())).now() > 0
    assert RedisBroker(Settings(redis_url=url("localhost"))).now() > 0
    with LightClient(url(), 5) as light:
        assert light(("PING",)) == [b"PONG"]


@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_a_wrong_certificate_is_refused_with_a_remedy(given: dict[str, Any], reason: str, url: Url) -> None:
    with pytest.raises(BrokerUnreachable, match="no TLS connection to the broker rediss://") as refusal:
        RedisBroker(Settings(redis_url=url(**given))).now()
    assert "and in the URL ssl_ca_certs (who signed the server's certificate)" in str(refusal.value)
    assert reason in str(refusal.value).upper().replace(" ", "_")


@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_the_light_client_refuses_it_too(given: dict[str, Any], reason: str, url: Url) -> None:
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
    assert main([*line.split(), "--redis-url", url(knows_ca=False)]) == ExitStatus.UNREACHABLE
    assert "no TLS connection to " in capsys.readouterr().err
