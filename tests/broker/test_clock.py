"""What the server writes is stamped by the server's clock, however wrong the client's is."""

import pytest

from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.requeue import Requeues
from morag_queue.core.model import QueueType
from tests.broker.conftest import ScriptRunner
from tests.support.simulated_fleet import SimulatedFleet


@pytest.fixture(autouse=True)
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)


def test_arrivals_count_in_the_minute_of_the_servers_clock(runner: ScriptRunner) -> None:
    now = runner.client.time()[0]

    Ledger(runner.client, runner.keys, 60).submit([OutgoingMessage("a", "m", "{}", "cpu_batch", "cpu_batch", 4, False)])

    assert int(runner.client.hget(runner.keys.current, "minute") or 0) in {now // 60, (now + 5) // 60}


def test_windows_that_are_read_with_the_fleet_end_at_the_servers_time(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.submit("a", "b")
    sim_fleet.client.script_flush()  # as after a restart
    first, _, early = sim_fleet.broker.observe_with_windows(600, 7 * 3600)

    snapshot, _, windows = sim_fleet.broker.observe_with_windows(600, 7 * 3600)

    assert windows == [sim_fleet.broker.windows(snapshot.taken_at, length) for length in (600, 7 * 3600)]
    assert early == [sim_fleet.broker.windows(first.taken_at, length) for length in (600, 7 * 3600)]
    assert [found[QueueType.CPU_STANDARD].arrivals for found in windows] == [2, 2]


def test_a_revoked_tag_is_kept_by_the_servers_clock(runner: ScriptRunner) -> None:
    requeues = Requeues(runner.client, runner.keys, 60)
    now = runner.client.time()[0]
    runner.client.zadd(runner.keys.revoked, {"old": now - 4 * 3600, "recent": now - 3600})

    requeues.revoke("tag")

    assert runner.client.zrange(runner.keys.revoked, 0, -1) == [b"recent", b"tag"]
    assert runner.client.zscore(runner.keys.revoked, "tag") == pytest.approx(now, abs=5)
