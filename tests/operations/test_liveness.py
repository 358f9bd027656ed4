"""The connections of workers whose heartbeat is overdue, on a real server."""

from morag_queue.core.model import WorkerStatus
from morag_queue.core.policy import Policy
from morag_queue.core.recovery.liveness import Connections, with_connections
from morag_queue.core.worker_status import status_in
from morag_queue.operations.liveness import count_connections
from tests.core.fleets import NOW, fleet, worker
from tests.support.simulated_fleet import connected

POLICY = Policy()
OVERDUE = 1e-6  # a heartbeat interval after which the first heartbeat is overdue at once


def counted(sim_fleet, pauses):
    snapshot = count_connections(sim_fleet.broker, sim_fleet.broker.observe()[0], pauses.append)
    return {view.worker: view.connections for view in snapshot.workers}


def test_connections_are_counted_only_for_workers_with_an_overdue_heartbeat(sim_fleet):
    for name in ("fresh", "dead", "silent"):
        sim_fleet.join(name, client_name=f"mq.{name}", beat_seconds=1000 if name == "fresh" else OVERDUE)
    sim_fleet.client.config_resetstat()
    pauses = []
    with connected(sim_fleet.url, "mq.silent"):
        assert counted(sim_fleet, pauses) == {"fresh": None, "dead": 0, "silent": 1}
    assert pauses == [0.1], "a worker between two connections is looked for again"
    assert sim_fleet.client.info("commandstats")["cmdstat_client|list"]["calls"] == 2


def test_nothing_is_read_while_all_heartbeats_are_on_time(sim_fleet):
    sim_fleet.join("fresh", client_name="mq.fresh", beat_seconds=1000)
    sim_fleet.client.config_resetstat()
    assert counted(sim_fleet, []) == {"fresh": None}
    assert "cmdstat_client|list" not in sim_fleet.client.info("commandstats")


def test_a_worker_that_reconnects_before_the_second_look_is_not_dead(sim_fleet):
    sim_fleet.join("w", client_name="mq.w", beat_seconds=OVERDUE)
    opened = []

    def reconnect(seconds):
        opened.append(connected(sim_fleet.url, "mq.w"))
        opened[0].__enter__()

    snapshot = count_connections(sim_fleet.broker, sim_fleet.broker.observe()[0], reconnect)
    opened[0].__exit__(None, None, None)
    assert snapshot.workers[0].connections == 1


def test_a_login_that_may_not_list_connections_leaves_them_unknown(sim_fleet):
    sim_fleet.join("w", client_name="mq.w", beat_seconds=OVERDUE)
    sim_fleet.client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-client|list"])
    try:
        url = sim_fleet.url.replace("redis://", "redis://blind:x@")
        blind = type(sim_fleet)(url)
        assert counted(blind, []) == {"w": None}
    finally:
        sim_fleet.client.acl_deluser("blind")


def test_after_a_restart_of_the_server_workers_have_time_to_reconnect():
    silent = worker("w", beat_age=8, client_name="mq.w")
    for up_for, expected in ((5, None), (9, 0), (11, 0)):
        seen = Connections({}, NOW - up_for)
        view = with_connections(fleet(silent), seen, POLICY).workers[0]
        assert view.connections == expected, f"up for {up_for} s, heartbeat 8 s ago"
    never = worker("w", beat_age=None, started_at=NOW - 20, client_name="mq.w")
    snapshot = with_connections(fleet(never), Connections({}, NOW - 5), POLICY)
    assert status_in(snapshot, snapshot.workers[0], POLICY)[0] is WorkerStatus.SUSPECT
