"""Workers on a Unix socket, behind a sentinel and through TLS."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import trustme

from tests.support.agent_fleet import AgentFleet
from tests.support.sentinel import SentinelFleet
from tests.support.tls import TlsProxy, client_options

WORKER = "worker-cpu-1"
Make = Callable[..., AgentFleet]


def assert_claims_and_reconnects(fleet: AgentFleet) -> None:
    sent = [fleet.submit("t.add", 1, 1) for _ in range(5)]
    fleet.until_ran(sent)
    assert fleet.claims(WORKER)
    assert fleet.close_connections(WORKER) > 0
    sent += [fleet.submit("t.add", 1, 1) for _ in range(5)]
    fleet.until_ran(sent)
    fleet.until_nothing_is_unacked()
    assert not fleet.account(sent).lost


def test_a_worker_reconnects_through_a_unix_socket(make_agent_fleet: Make) -> None:
    with tempfile.TemporaryDirectory() as short:  # a path of a Unix socket is limited to 107 bytes
        socket = Path(short, "valkey.sock")
        fleet = make_agent_fleet(config={"unixsocket": str(socket)})
        fleet.start_worker(WORKER, env={"REDIS_URL": f"redis+socket://{socket}"})

        assert_claims_and_reconnects(fleet)


def test_a_worker_reconnects_through_a_sentinel(make_fleet: Callable[..., SentinelFleet]) -> None:
    fleet = make_fleet(SentinelFleet)
    fleet.start_worker(WORKER)

    assert_claims_and_reconnects(fleet)


def test_a_worker_with_a_client_certificate_claims_and_reconnects_through_tls(make_agent_fleet: Make) -> None:
    fleet, ca = make_agent_fleet(), trustme.CA()
    with TlsProxy(ca, fleet.server.port) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?{urlencode(client_options(ca, fleet.dir))}"
        fleet.start_worker(WORKER, env={"REDIS_URL": url})

        assert_claims_and_reconnects(fleet)
        fleet.env["REDIS_URL"] = url
        assert fleet.run_json("stats")["workers"]
