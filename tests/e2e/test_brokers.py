"""Workers on a Unix socket, behind a sentinel and through TLS."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import trustme

from morag_queue.local.server import _binary, _free_port
from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet
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


def test_a_worker_reconnects_through_a_sentinel(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    port = _free_port()
    conf = fleet.dir / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\nset-proc-title no\nsentinel monitor first 127.0.0.1 {fleet.server.port} 1\n"
    )
    fleet.sandbox.spawn("sentinel", [str(_binary()), str(conf), "--sentinel"])
    until(lambda: "+monitor" in fleet.log("sentinel"), 10, lambda: fleet.log("sentinel"))
    app_conf = {"broker_transport_options": {"master_name": "first"}, "result_backend": fleet.url}
    url = f"sentinel://127.0.0.1:{port}/0"

    fleet.start_worker(WORKER, env={"REDIS_URL": url, "TEST_APP_CONF": json.dumps(app_conf)})

    assert_claims_and_reconnects(fleet)


def test_a_worker_with_a_client_certificate_claims_and_reconnects_through_tls(make_agent_fleet: Make) -> None:
    fleet, ca = make_agent_fleet(), trustme.CA()
    with TlsProxy(ca, fleet.server.port) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?{urlencode(client_options(ca, fleet.dir))}"
        fleet.start_worker(WORKER, env={"REDIS_URL": url})

        assert_claims_and_reconnects(fleet)
        fleet.env["REDIS_URL"] = url
        assert fleet.run_json("stats")["workers"]
